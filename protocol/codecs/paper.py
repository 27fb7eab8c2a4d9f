"""What the papers send, as the thing to beat: the whole head as 16-bit floats through zlib, no delta.

Wu and Chaddad 2025 (arXiv:2511.07929) and its predecessors convert the shared module to half precision and
compress it with zlib. Values beyond half precision are cut to its largest. For the bandwidth benchmark only:
a federation refuses it, because rounding the whole head in each round loses every smaller change.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from fedmedclip.protocol.codecs.codec import Decoded, Encoded
from fedmedclip.protocol.codecs.reader import Reader
from fedmedclip.protocol.errors import CodecError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

IDENTIFIER = 4


@dataclass(frozen=True)
class PaperCodec:
    """All values as 16-bit floats, arrays in order, zlib at its default level."""

    name: str = "paper-fp16-zlib"

    lossless = False
    whole_head = True
    carry = 1.0

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`."""
        del memory
        largest = np.finfo(np.float16).max
        values = np.clip(np.frombuffer(specification.to_bytes(arrays), "<f4"), -largest, largest)
        return Encoded(bytes([IDENTIFIER]) + zlib.compress(values.astype("<f2").tobytes()))


def decode(reader: Reader, specification: HeadSpecification) -> Decoded:
    """Return what `PaperCodec` encoded; `reader` stands after the identifier. Raises CodecError."""
    size = 2 * specification.size
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(reader.rest(), size + 1)
    except zlib.error as error:
        raise CodecError(f"an encoded head is damaged: {error}") from error
    if len(content) != size or not decompressor.eof or decompressor.unused_data:
        raise CodecError(f"an encoded head is not one zlib stream of {size} bytes")
    values = np.frombuffer(content, "<f2").astype("<f4")
    if not np.isfinite(values).all():
        raise CodecError("an encoded head has a NaN or infinite value")
    stream = np.frombuffer(content, np.uint8)
    return Decoded(specification.from_bytes(values.tobytes()), (stream,), 1)
