"""How named float32 arrays become bytes and back: `docs/protocol.md`, section "Encoded heads".

    named arrays -> transform (none, low rank) -> sparsifier (none, top-k) -> quantiser -> packing -> zstd

    statistics   -> symmetric factor, predicted rows -> integers -> range coder

`presets.py` names the compositions; `dense.py`, `sparse.py`, `low_rank.py` and `moments.py` are one each.
"""

from fedmedclip.protocol.codecs.codec import Codec, Encoded
from fedmedclip.protocol.codecs.presets import (
    codec_named,
    decode_delta,
    decode_head,
    delta_codec_named,
    encode_head,
    known_codecs,
    maximum_encoded_bytes,
    order0_entropy_bytes,
    require_delta_codec,
)

__all__ = [
    "Codec",
    "Encoded",
    "codec_named",
    "decode_delta",
    "decode_head",
    "delta_codec_named",
    "encode_head",
    "known_codecs",
    "maximum_encoded_bytes",
    "order0_entropy_bytes",
    "require_delta_codec",
]
