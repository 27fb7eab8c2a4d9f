"""Small integers in bytes: several symbols in each, so that an entropy coder of bytes sees them together."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import CodecError

Integers = npt.NDArray[np.integer[Any]]


# Symbols of 2 bits go four to a byte when there are many. Of few, Huffman's table of up to 81 kinds of bytes
# would cost more than it saves: they go two to a byte.
_MANY = 1 << 14


def symbol_width(count: int, bits: int) -> int:
    """Return the width in bits of the field that holds each of `count` symbols of `bits` bits."""
    if bits == 2:
        return 2 if count >= _MANY else 4
    return next(width for width in (1, 4, 8) if bits <= width)


def packed_size(count: int, bits: int) -> int:
    """Return the number of bytes that `count` symbols take."""
    return -(-count * symbol_width(count, bits) // 8)


def largest_packed_size(count: int, bits: int) -> int:
    """Return the number of bytes that at most `count` symbols take: few of 2 bits may take more than many."""
    return max(packed_size(count, bits), packed_size(min(count, _MANY - 1), bits))


def pack(symbols: Integers, bits: int) -> bytes:
    """Return symbols in [0, 2**bits) as bytes, the first in the highest bits; the last byte ends in zeros."""
    width = symbol_width(len(symbols), bits)
    per_byte = 8 // width
    fields = np.zeros((packed_size(len(symbols), bits), per_byte), np.uint8)
    fields.reshape(-1)[: len(symbols)] = symbols
    packed = np.zeros(len(fields), np.uint8)
    for position in range(per_byte):
        packed |= fields[:, position] << np.uint8(8 - width * (position + 1))
    return packed.tobytes()


def unpack(packed: bytes, count: int, bits: int) -> npt.NDArray[np.uint8]:
    """Return the `count` symbols of `pack`. Raises CodecError when there are more or fewer bytes."""
    if len(packed) != packed_size(count, bits):
        raise CodecError(f"{count} symbols take {packed_size(count, bits)} bytes, there are {len(packed)}")
    width = symbol_width(count, bits)
    shifts = np.arange(8 - width, -1, -width, dtype=np.uint8)
    fields = (np.frombuffer(packed, np.uint8)[:, None] >> shifts) & np.uint8((1 << width) - 1)
    return fields.reshape(-1)[:count]


def zigzag(integers: Integers) -> npt.NDArray[np.uint8]:
    """Return integers of [-127, 127] as 0, -1, 1, -2, 2 ... -> 0, 1, 2, 3, 4 ..."""
    wide = integers.astype(np.int16)
    return np.where(wide < 0, -2 * wide - 1, 2 * wide).astype(np.uint8)


def unzigzag(symbols: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Return the integers of `zigzag`; 255, which it never makes, gives -128."""
    wide = symbols.astype(np.int16)
    return np.where(wide & 1, -(wide >> 1) - 1, wide >> 1).astype(np.int16)
