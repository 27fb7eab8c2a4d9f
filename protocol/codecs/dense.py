"""Every value is sent: no transform, a quantiser or plain floats, packing, zstd.

After the identifier: one byte, the number format (32 and 16: floats of that many bits; 8, 4, 3, 2, 1:
integers of that many bits, with 128 added when each array has one scale instead of one per row), then the
wrapped content. Floats: their lowest bytes, then the second ... Integers: the scales of all rows, arrays in
order; then the packed symbols of all rows whose scale is not 0: a row without change costs its scale alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.codec import Decoded, Encoded
from fedmedclip.protocol.codecs.container import unwrap, wrap
from fedmedclip.protocol.codecs.packing import largest_packed_size, pack, unpack
from fedmedclip.protocol.codecs.quantiser import INTEGER_BITS, Quantiser
from fedmedclip.protocol.codecs.reader import Reader
from fedmedclip.protocol.codecs.scales import SCALE_BYTES, scales_from_bytes, scales_to_bytes
from fedmedclip.protocol.errors import CodecError, HeadError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification

IDENTIFIER = 1
_FLOATS: dict[int, npt.DTypeLike] = {32: "<f4", 16: "<f2"}
_SCALE_PER_ARRAY = 128

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FloatCodec:
    """All values as floats of 32 bits (lossless) or 16 bits, byte planes apart."""

    name: str
    bits: int

    whole_head = False
    carry = 1.0

    @property
    def lossless(self) -> bool:
        """Whether decoding gives the same bits."""
        return self.bits == 32

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`. Raises HeadError for values that 16 bits do not hold."""
        del memory
        values = np.frombuffer(specification.to_bytes(arrays), "<f4")
        if self.bits == 16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise HeadError("a value of a delta is too large for 16 bits; did training diverge?")
        planes = values.astype(_FLOATS[self.bits]).view(np.uint8).reshape(len(values), -1).T
        return Encoded(bytes([IDENTIFIER, self.bits]) + wrap(planes.tobytes()))


@dataclass(frozen=True)
class IntegerCodec:
    """All values as small integers, with a scale per row (per array for one dimension) or per array."""

    name: str
    quantiser: Quantiser
    scale_per_array: bool = False

    lossless = False
    whole_head = False
    carry = 1.0

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`."""
        del memory
        all_scales, all_symbols = [], []
        for tensor in specification.tensors:
            rows = arrays[tensor.name].reshape(_rows(tensor, self.scale_per_array), -1)
            scales, symbols = self.quantiser.quantise(rows)
            all_scales.append(scales)
            all_symbols.append(symbols[scales > 0].reshape(-1))
        packed = pack(np.concatenate(all_symbols), self.quantiser.bits)
        content = scales_to_bytes(np.concatenate(all_scales)) + packed
        number_format = self.quantiser.bits + _SCALE_PER_ARRAY * self.scale_per_array
        return Encoded(bytes([IDENTIFIER, number_format]) + wrap(content))


def decode(reader: Reader, specification: HeadSpecification) -> Decoded:
    """Return what a dense codec encoded; `reader` stands after the identifier. Raises CodecError."""
    number_format = reader.byte()
    if number_format in _FLOATS:
        return _decode_floats(reader.rest(), number_format, specification)
    bits, per_array = number_format % _SCALE_PER_ARRAY, number_format >= _SCALE_PER_ARRAY
    if bits not in (1, *INTEGER_BITS):
        raise CodecError(f"an encoded head has the unknown number format {number_format}")
    return _decode_integers(reader.rest(), Quantiser(bits), per_array, specification)


def _decode_floats(body: bytes, bits: int, specification: HeadSpecification) -> Decoded:
    size = specification.size * bits // 8
    content = unwrap(body, size)
    if len(content) != size:
        raise CodecError(f"an encoded head unpacks to {len(content)} bytes, expected {size}")
    planes = np.frombuffer(content, np.uint8).reshape(bits // 8, -1)
    values = np.frombuffer(planes.T.tobytes(), _FLOATS[bits]).astype("<f4")
    if not np.isfinite(values).all():
        raise CodecError("an encoded head has a NaN or infinite value")
    return Decoded(specification.from_bytes(values.tobytes()), tuple(planes), 3)


def _decode_integers(
    body: bytes, quantiser: Quantiser, per_array: bool, specification: HeadSpecification
) -> Decoded:
    row_counts = [_rows(tensor, per_array) for tensor in specification.tensors]
    scale_bytes = SCALE_BYTES * sum(row_counts)
    content = unwrap(body, scale_bytes + largest_packed_size(specification.size, quantiser.bits))
    reader = Reader(content)
    scales = scales_from_bytes(reader.take(scale_bytes))
    lengths = [
        tensor.size // rows if rows else 0
        for tensor, rows in zip(specification.tensors, row_counts, strict=True)
    ]
    sent = np.repeat(lengths, row_counts) * (scales > 0)
    symbols = unpack(reader.rest(), int(sent.sum()), quantiser.bits)
    arrays: NamedArrays = {}
    row = position = 0
    for tensor, rows, length in zip(specification.tensors, row_counts, lengths, strict=True):
        own = scales[row : row + rows]
        changed = np.flatnonzero(own)
        block = symbols[position : position + len(changed) * length].reshape(len(changed), length)
        values = np.zeros((rows, length), np.float32)
        values[changed] = quantiser.dequantise(own[changed, None], block)
        arrays[tensor.name] = values.reshape(tensor.shape)
        row += rows
        position += block.size
    return Decoded(arrays, (symbols,), 3 + scale_bytes)


def _rows(tensor: TensorSpecification, scale_per_array: bool) -> int:
    return 1 if scale_per_array or len(tensor.shape) < 2 else tensor.shape[0]
