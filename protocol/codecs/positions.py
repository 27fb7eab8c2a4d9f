"""Where the values of a sparse vector are: the gaps between them, each as its length in bits and its bits.

This is Elias' gamma code (1975) with the lengths entropy-coded: where gaps are geometrically distributed it
takes what Golomb-Rice code takes, and less where positions crowd in some rows, as those of large values do.
"""

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.container import unwrap, wrap
from fedmedclip.protocol.codecs.packing import pack, unpack
from fedmedclip.protocol.codecs.reader import Reader, variable_integer
from fedmedclip.protocol.errors import CodecError

Positions = npt.NDArray[np.int64]

_LARGEST_LENGTH = 30
_FEW = 2048


def positions_to_bytes(positions: Positions) -> bytes:
    """Return rising positions as bytes: their count (a variable integer), and if that is not 0:

    the size in bytes of the wrapped lengths (a variable integer); the lengths, wrapped: a byte 4 or 8, then
    packed symbols of so many bits, whichever takes less; then the bits. A gap is the number of places
    since the position before, from 1 on (the first counts from -1). Its length is that of its binary number
    without the leading 1; its bits are that number, highest first, and all bits follow each other, filled up
    with zeros to whole bytes.
    """
    if len(positions) == 0:
        return variable_integer(0)
    gaps = np.diff(positions, prepend=-1)
    lengths = _lengths(gaps)
    owners, shifts = _bit_layout(lengths)
    bits = (gaps[owners] >> shifts) & 1
    wrapped = min((wrap(bytes([width]) + pack(lengths, width)) for width in _widths(lengths)), key=len)
    head = variable_integer(len(positions)) + variable_integer(len(wrapped))
    return head + wrapped + np.packbits(bits.astype(np.uint8)).tobytes()


def positions_from_bytes(reader: Reader, size: int) -> tuple[Positions, npt.NDArray[np.uint8]]:
    """Read positions in a vector of `size` values; return them and the lengths of their gaps.

    Raises CodecError unless they rise and lie inside.
    """
    count = reader.variable_integer(size)
    if count == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.uint8)
    packed = Reader(unwrap(reader.take(reader.variable_integer(count + 2)), count + 1))
    width = packed.byte()
    if width not in (4, 8):
        raise CodecError(f"an encoded head has positions whose lengths take {width} bits")
    lengths = unpack(packed.rest(), count, width)
    if lengths.max() > _LARGEST_LENGTH:
        raise CodecError("an encoded head has a position beyond all heads")
    total = int(lengths.sum(dtype=np.int64))
    stored = np.frombuffer(reader.take(-(-total // 8)), np.uint8)
    owners, shifts = _bit_layout(lengths)
    bits = np.unpackbits(stored, count=total).astype(np.int64) << shifts
    # Sums of distinct powers of two below 2**30: exact in the float64 that bincount adds in.
    tails = np.bincount(owners, weights=bits, minlength=count).astype(np.int64)
    positions = np.cumsum((np.int64(1) << lengths.astype(np.int64)) + tails) - 1
    if positions[-1] >= size:
        raise CodecError(f"an encoded head has positions outside its {size} values")
    return positions, lengths


def _lengths(gaps: Positions) -> npt.NDArray[np.int64]:
    """Return the number of bits after the leading one."""
    return np.frexp(gaps.astype(np.float64))[1].astype(np.int64) - 1


def _widths(lengths: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Return the widths to try: of few lengths, a Huffman table of pairs may cost more than it saves."""
    if lengths.max() >= 16:
        return (8,)
    return (4, 8) if len(lengths) <= _FEW else (4,)


def _bit_layout(lengths: npt.NDArray[np.integer]) -> tuple[Positions, Positions]:
    """Return for each stored bit the gap that it belongs to, and its place in it from the right."""
    owners = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(lengths, dtype=np.int64)
    return owners, ends[owners] - 1 - np.arange(len(owners))
