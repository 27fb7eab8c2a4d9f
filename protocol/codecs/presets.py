"""The named codecs, and finding the decoder of received bytes."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs import dense, low_rank, moments_format, paper, sparse
from fedmedclip.protocol.codecs.automatic import AutomaticCodec
from fedmedclip.protocol.codecs.codec import Codec, Decoded, Encoded
from fedmedclip.protocol.codecs.dense import FloatCodec, IntegerCodec
from fedmedclip.protocol.codecs.low_rank import GRIDS, LARGEST_RANK, LowRankCodec
from fedmedclip.protocol.codecs.moments import DEFAULT_BUDGET, MomentsCodec
from fedmedclip.protocol.codecs.names import CodecName, parse_name
from fedmedclip.protocol.codecs.paper import PaperCodec
from fedmedclip.protocol.codecs.quantiser import INTEGER_BITS, Quantiser
from fedmedclip.protocol.codecs.reader import Reader
from fedmedclip.protocol.codecs.sparse import SparseCodec
from fedmedclip.protocol.envelope import OVERHEAD_BYTES
from fedmedclip.protocol.errors import CodecError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.plugins import known_names, load_from_outside

GROUP = "fedmedclip.codecs"
Preset = Callable[[CodecName], Codec]
"""Takes its parameters from the name and returns the codec of that name."""
_LEAST_BUDGET = 256


def _floats(name: CodecName, bits: int) -> Codec:
    return FloatCodec(name.name, bits)


def _integers(name: CodecName, bits: int) -> Codec:
    return IntegerCodec(name.name, Quantiser(bits), name.take_choice("scale", ("row", "array")) == "array")


def _topk(name: CodecName) -> Codec:
    share = name.take_number("share", 0.01, 1e-6, 1.0)
    assert share is not None
    return SparseCodec(name.name, share, Quantiser(name.take_integer("bits", 1, (1, *INTEGER_BITS))))


def _lowrank(name: CodecName) -> Codec:
    ranks = range(1, LARGEST_RANK + 1)
    rank = name.take_integer("rank", 1, ranks) if name.has("rank") else None
    bits = name.take_integer("bits", 3, tuple(GRIDS))
    return LowRankCodec(name.name, rank, bits, carry=_carry(name))


def _auto(name: CodecName) -> Codec:
    budget = name.take_number("bytes", None, _LEAST_BUDGET, 1e9)
    kilobits = name.take_number("kbits", None, 1e-3, 1e9)
    seconds = name.take_number("seconds", None, 1e-3, 1e9)
    if kilobits is not None and seconds is not None and budget is None:
        budget = 125 * kilobits * seconds
    elif budget is None or kilobits is not None or seconds is not None:
        raise InvalidInputError(
            f"codec {name.name!r}: state a message's budget as auto:bytes=3000 or auto:kbits=64,seconds=1"
        )
    if budget < _LEAST_BUDGET:
        raise InvalidInputError(
            f"codec {name.name!r}: a budget of {budget:.0f} bytes is below {_LEAST_BUDGET}, "
            f"{OVERHEAD_BYTES} of which go into the envelope"
        )
    return AutomaticCodec(name.name, int(budget), _carry(name))


def _moments(name: CodecName) -> Codec:
    budget = name.take_number("bytes", DEFAULT_BUDGET, _LEAST_BUDGET, 1e9)
    assert budget is not None
    return MomentsCodec(name.name, int(budget), _carry(name))


def _carry(name: CodecName) -> float:
    carry = name.take_number("carry", 1.0, 0.0, 1.0)
    assert carry is not None
    return carry


_PRESETS: dict[str, Preset] = {
    "lossless": lambda name: _floats(name, 32),
    "fp16": lambda name: _floats(name, 16),
    "int8": lambda name: _integers(name, 8),
    "int4": lambda name: _integers(name, 4),
    "int3": lambda name: _integers(name, 3),
    "int2": lambda name: _integers(name, 2),
    "sign": lambda name: _integers(name, 1),
    "topk": _topk,
    "lowrank": _lowrank,
    "auto": _auto,
    "moments": _moments,
    "paper-fp16-zlib": lambda name: PaperCodec(name.name),
}

# Presets alone come from outside. A decoder is in docs/protocol.md or it is none: every party must have it,
# and what bytes a stranger sends must not choose which code runs.
_DECODERS: dict[int, Callable[[Reader, HeadSpecification], Decoded]] = {
    module.IDENTIFIER: module.decode for module in (dense, sparse, low_rank, paper, moments_format)
}


def known_codecs() -> list[str]:
    """Return the names of the presets, sorted; InvalidInputError when one from outside is named like ours."""
    return known_names(GROUP, "codec", _PRESETS)


def codec_named(name: str) -> Codec:
    """Return the codec of a name such as `lossless`, `topk:share=0.01` or `auto:bytes=3000`.

    Another distribution may bring further presets, whose bytes one of our decoders reads. Raises
    InvalidInputError for an unknown preset, parameter or value, with what there is.
    """
    parsed = parse_name(name)
    preset: Preset | None = _PRESETS.get(parsed.preset)
    preset = preset or load_from_outside(GROUP, "codec", parsed.preset, callable)
    if preset is None:
        raise InvalidInputError(unknown_name("codec", parsed.preset, known_codecs()))
    codec = preset(parsed)
    parsed.finish()
    return codec


def delta_codec_named(name: str) -> Codec:
    """Return the codec of this name for a federation, where deltas travel; InvalidInputError otherwise."""
    codec = codec_named(name)
    if codec.whole_head:
        raise InvalidInputError(f"codec {name!r} sends whole heads and serves to compare; use lowrank")
    return codec


def require_delta_codec(name: str, setting: str) -> None:
    """Raise InvalidInputError, which begins with `setting`, unless a federation may use this codec."""
    try:
        delta_codec_named(name)
    except InvalidInputError as error:
        raise InvalidInputError(f"{setting}: {error}") from error


def encode_head(
    codec: Codec, arrays: NamedArrays, specification: HeadSpecification, memory: bytes = b""
) -> Encoded:
    """Return the encoded arrays and the encoder's new memory; `memory` is that of the round before.

    Raises HeadError when the arrays do not match the specification, or are too large to encode.
    """
    specification.check(arrays)
    return codec.encode(arrays, specification, memory)


def decode_head(encoded: bytes, specification: HeadSpecification) -> NamedArrays:
    """Return the arrays of an encoded head. Raises CodecError for any bytes that are not exactly one."""
    return _decode(encoded, specification).arrays


def decode_delta(encoded: bytes, specification: HeadSpecification) -> NamedArrays:
    """Return the arrays of an encoded delta. Raises CodecError for other bytes, also for a whole head."""
    if encoded[:1] == bytes([paper.IDENTIFIER]):
        raise CodecError("an encoded head is whole where a delta is due; use another codec")
    return decode_head(encoded, specification)


def order0_entropy_bytes(encoded: bytes, specification: HeadSpecification) -> float:
    """Return what an ideal order-0 coder would make of an encoded head, in bytes.

    That is the empirical entropy of each of its symbol streams, and all other bytes as they are. Raises
    CodecError as `decode_head` does.
    """
    decoded = _decode(encoded, specification)
    return decoded.side_bytes + sum(_entropy_bytes(stream) for stream in decoded.streams)


def maximum_encoded_bytes(specification: HeadSpecification) -> int:
    """More bytes than any codec makes of a head: the bound on what a receiver accepts."""
    return 4 * specification.size + specification.size // 8 + 4096


def _decode(encoded: bytes, specification: HeadSpecification) -> Decoded:
    decoder = _DECODERS.get(encoded[0]) if encoded else None
    if decoder is None:
        raise CodecError(f"codec identifier {encoded[:1].hex() or 'missing'} is not known; update this side")
    return decoder(Reader(encoded[1:]), specification)


def _entropy_bytes(symbols: npt.NDArray[np.integer]) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    shares = counts / max(1, len(symbols))
    return float(-(shares * np.log2(shares)).sum()) * len(symbols) / 8
