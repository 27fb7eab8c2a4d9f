"""How named float32 arrays become bytes and back: `docs/protocol.md`, section "Encoded heads"."""

from protocol.codecs.codec import Codec, Encoded
from protocol.codecs.presets import (
    codec_named,
    decode_head,
    encode_head,
    maximum_encoded_bytes,
    order0_entropy_bytes,
)

__all__ = [
    "Codec",
    "Encoded",
    "codec_named",
    "decode_head",
    "encode_head",
    "maximum_encoded_bytes",
    "order0_entropy_bytes",
]
