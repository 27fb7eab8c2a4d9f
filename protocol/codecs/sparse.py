"""Only the largest values are sent: top-k, gap coding, a quantiser, packing, zstd.

Aji and Heafield 2017, "Sparse communication for distributed gradient descent"; with one bit per value this is
sparse ternary compression (Sattler et al. 2019, algorithm 1), each array with its own mean magnitude.

After the identifier: one byte, the bits per value; the positions among all values of the head, arrays in
order (`positions.py`); one scale per array; the wrapped, packed symbols, in the order of the positions.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.codec import Decoded, Encoded
from fedmedclip.protocol.codecs.container import unwrap, wrap
from fedmedclip.protocol.codecs.packing import pack, packed_size, unpack
from fedmedclip.protocol.codecs.positions import positions_from_bytes, positions_to_bytes
from fedmedclip.protocol.codecs.quantiser import INTEGER_BITS, Quantiser
from fedmedclip.protocol.codecs.reader import Reader
from fedmedclip.protocol.codecs.scales import SCALE_BYTES, scales_from_bytes, scales_to_bytes
from fedmedclip.protocol.errors import CodecError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

IDENTIFIER = 2


@dataclass(frozen=True)
class SparseCodec:
    """The `share` of all values with the largest magnitude, at least one; equal ones: the first."""

    name: str
    share: float
    quantiser: Quantiser

    lossless = False
    whole_head = False
    carry = 1.0

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`."""
        del memory
        values = np.frombuffer(specification.to_bytes(arrays), "<f4").astype(np.float32)
        positions = _largest(np.abs(values), math.ceil(self.share * len(values)))
        owners = _owners(positions, specification)
        scales, symbols = [], [np.zeros(0, np.uint8)]
        for number in range(len(specification.tensors)):
            chosen = values[positions[owners == number]]
            scale, own_symbols = self.quantiser.quantise(chosen.reshape(1, -1) if len(chosen) else _NOTHING)
            scales.append(scale)
            symbols.append(own_symbols[0, : len(chosen)])
        body = positions_to_bytes(positions) + scales_to_bytes(np.concatenate(scales))
        body += wrap(pack(np.concatenate(symbols), self.quantiser.bits))
        return Encoded(bytes([IDENTIFIER, self.quantiser.bits]) + body)


_NOTHING = np.zeros((1, 1), np.float32)


def decode(reader: Reader, specification: HeadSpecification) -> Decoded:
    """Return what a sparse codec encoded; `reader` stands after the identifier. Raises CodecError."""
    bits = reader.byte()
    if bits not in (1, *INTEGER_BITS):
        raise CodecError(f"an encoded head has values of {bits} bits")
    positions, gap_lengths = positions_from_bytes(reader, specification.size)
    scales = scales_from_bytes(reader.take(SCALE_BYTES * len(specification.tensors)))
    count = len(positions)
    symbols = unpack(unwrap(reader.rest(), packed_size(count, bits)), count, bits)
    values = np.zeros(specification.size, np.float32)
    values[positions] = Quantiser(bits).dequantise(scales[_owners(positions, specification)], symbols)
    gap_bytes = -(-int(gap_lengths.sum(dtype=np.int64)) // 8)
    side_bytes = 8 + gap_bytes + SCALE_BYTES * len(scales)
    arrays = specification.from_bytes(values.astype("<f4").tobytes())
    return Decoded(arrays, (gap_lengths, symbols), side_bytes)


def _largest(magnitudes: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Return the rising positions of the `count` largest values; of equal ones the first, zeros never."""
    threshold = np.partition(magnitudes, len(magnitudes) - count)[len(magnitudes) - count]
    above = np.flatnonzero(magnitudes > threshold)
    level = np.flatnonzero((magnitudes == threshold) & (threshold > 0))[: count - len(above)]
    return np.sort(np.concatenate([above, level]))


def _owners(positions: npt.NDArray[np.int64], specification: HeadSpecification) -> npt.NDArray[np.int64]:
    """Return the number of the array that each position lies in."""
    ends = np.cumsum([tensor.size for tensor in specification.tensors])
    return np.searchsorted(ends, positions, side="right")
