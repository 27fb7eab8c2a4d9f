"""How named float32 arrays become bytes and back.

An encoded head starts with one byte, the codec's identifier; the rest is one zstd frame (RFC 8878) of known
decompressed size. Decoding multiplies integers with float32 scales and nothing else, so it gives the same
bits on every machine, and it never allocates more than the head specification says.
"""

import numpy as np
import numpy.typing as npt
import zstandard

from protocol.codecs.codec import Codec, Encoded
from protocol.errors import CodecError, InvalidInputError
from protocol.head import HeadSpecification, NamedArrays

_ZSTD_LEVEL = 9
_WINDOW_LIMIT = 1 << 27


class Lossless:
    """All values as float32, byte planes apart (all lowest bytes first), which zstd compresses best."""

    name = "lossless"
    identifier = 1
    lossless = True
    whole_head = False

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`."""
        return Encoded(_framed(self.identifier, self.pack(arrays, specification)))

    def pack(self, arrays: NamedArrays, specification: HeadSpecification) -> bytes:
        values = np.frombuffer(specification.to_bytes(arrays), dtype=np.uint8)
        return values.reshape(-1, 4).T.tobytes()

    def packed_size(self, specification: HeadSpecification) -> int:
        return 4 * specification.size

    def unpack(self, packed: bytes, specification: HeadSpecification) -> NamedArrays:
        planes = np.frombuffer(packed, dtype=np.uint8).reshape(4, -1)
        arrays = specification.from_bytes(planes.T.tobytes())
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise CodecError("an encoded head has a NaN or infinite value")
        return arrays


class Int8:
    """8-bit integers with one float32 scale per row (per array for one dimension): value = scale * integer.

    Packed as all scales (float32, little-endian), then all integers, arrays in the specification's order.
    The scale is the row's largest magnitude / 127, so the error is at most half a scale.
    """

    name = "int8"
    identifier = 2
    lossless = False
    whole_head = False

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`."""
        return Encoded(_framed(self.identifier, self.pack(arrays, specification)))

    def pack(self, arrays: NamedArrays, specification: HeadSpecification) -> bytes:
        scales, integers = [], []
        for tensor in specification.tensors:
            rows = _rows(np.asarray(arrays[tensor.name], dtype=np.float32))
            scale = np.abs(rows).max(axis=1, initial=0.0) / np.float32(127)
            divisor = np.where(scale > 0, scale, np.float32(1))
            integers.append(np.clip(np.rint(rows / divisor[:, None]), -127, 127).astype(np.int8))
            scales.append(scale.astype("<f4"))
        return b"".join(part.tobytes() for part in (*scales, *integers))

    def packed_size(self, specification: HeadSpecification) -> int:
        return 4 * _row_count(specification) + specification.size

    def unpack(self, packed: bytes, specification: HeadSpecification) -> NamedArrays:
        row_count = _row_count(specification)
        scales = np.frombuffer(packed, dtype="<f4", count=row_count).astype(np.float32)
        # 127 * scale must stay finite as well.
        if not (np.isfinite(scales) & (scales >= 0) & (scales < np.float32(1e30))).all():
            raise CodecError("an encoded head has a scale that is negative, NaN or out of range")
        integers = np.frombuffer(packed, dtype=np.int8, offset=4 * row_count)
        arrays: NamedArrays = {}
        row = position = 0
        for tensor in specification.tensors:
            rows = 1 if len(tensor.shape) < 2 else tensor.shape[0]
            block = integers[position : position + tensor.size].reshape(rows, -1).astype(np.float32)
            arrays[tensor.name] = (block * scales[row : row + rows, None]).reshape(tensor.shape)
            row += rows
            position += tensor.size
        return arrays


CODECS = {codec.name: codec for codec in (Lossless(), Int8())}
_BY_IDENTIFIER = {codec.identifier: codec for codec in CODECS.values()}


def codec_named(name: str) -> Codec:
    """Return the codec of this name; raise InvalidInputError with the known names otherwise."""
    if name not in CODECS:
        raise InvalidInputError(f"unknown codec {name!r}; known: {', '.join(sorted(CODECS))}")
    return CODECS[name]


def encode_head(
    codec: Codec, arrays: NamedArrays, specification: HeadSpecification, memory: bytes = b""
) -> Encoded:
    """Return the encoded arrays and the encoder's new memory; `memory` is that of the round before.

    Raises HeadError when the arrays do not match the specification.
    """
    specification.check(arrays)
    return codec.encode(arrays, specification, memory)


def _framed(identifier: int, packed: bytes) -> bytes:
    return bytes([identifier]) + zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(packed)


def decode_head(encoded: bytes, specification: HeadSpecification) -> NamedArrays:
    """Return the arrays of an encoded head. Raises CodecError for any bytes that are not exactly one."""
    codec = _BY_IDENTIFIER.get(encoded[0]) if encoded else None
    if codec is None:
        raise CodecError(f"codec identifier {encoded[:1].hex() or 'missing'} is not known; update this side")
    expected = codec.packed_size(specification)
    frame = encoded[1:]
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size != expected:
            raise CodecError(
                f"an encoded head unpacks to {parameters.content_size} bytes, expected {expected}"
            )
        if parameters.window_size > _WINDOW_LIMIT or parameters.dict_id:
            raise CodecError("an encoded head asks for a larger window or a dictionary")
        packed = zstandard.ZstdDecompressor().decompress(
            frame, max_output_size=expected, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise CodecError(f"an encoded head is damaged: {error}") from error
    if len(packed) != expected:
        raise CodecError(f"an encoded head unpacks to {len(packed)} bytes, expected {expected}")
    return codec.unpack(packed, specification)


def order0_entropy_bytes(encoded: bytes, specification: HeadSpecification) -> float:
    """Return what an ideal order-0 coder makes of the encoded head's symbols, in bytes, side data included.

    Raises CodecError as `decode_head` does.
    """
    decode_head(encoded, specification)
    symbols = np.frombuffer(zstandard.ZstdDecompressor().decompress(encoded[1:]), dtype=np.uint8)
    counts = np.bincount(symbols)
    shares = counts[counts > 0] / len(symbols)
    return 1 + float(-(shares * np.log2(shares)).sum()) * len(symbols) / 8


def maximum_encoded_bytes(specification: HeadSpecification) -> int:
    """More bytes than any codec makes of a head: the bound on what a receiver accepts."""
    return 4 * specification.size + specification.size // 8 + 4096


def _rows(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return array.reshape(1, -1) if array.ndim < 2 else array.reshape(array.shape[0], -1)


def _row_count(specification: HeadSpecification) -> int:
    return sum(1 if len(tensor.shape) < 2 else tensor.shape[0] for tensor in specification.tensors)
