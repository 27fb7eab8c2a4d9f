"""How heads become payloads: our deltas with error feedback, or the papers' whole heads."""

import math
import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Protocol

from fedmedclip.protocol.codecs import (
    Codec,
    codec_named,
    decode_head,
    delta_codec_named,
    encode_head,
    order0_entropy_bytes,
)
from fedmedclip.protocol.codecs.error_feedback import (
    Compressed,
    apply_delta,
    change_to_send,
    compress,
    compress_within,
    require_carrying_codec,
    what_to_send,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

_TIMED_REPEATS = 3


@dataclass
class CodecMeasurements:
    """What encoding real updates takes: milliseconds, and bytes of the payload and of its order-0 entropy."""

    encode_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)
    entropy_bytes: list[float] = field(default_factory=list)
    payload_bytes: list[int] = field(default_factory=list)

    def take(
        self, codec: Codec, arrays: NamedArrays, memory: bytes, specification: HeadSpecification
    ) -> None:
        """Encode and decode the arrays a few times and record the medians. Nothing else changes."""
        encode_ms, decode_ms = [], []
        for _ in range(_TIMED_REPEATS):
            started = time.process_time()
            encoded = encode_head(codec, arrays, specification, memory)
            between = time.process_time()
            decode_head(encoded.data, specification)
            decode_ms.append(1000 * (time.process_time() - between))
            encode_ms.append(1000 * (between - started))
        self.encode_ms.append(median(encode_ms))
        self.decode_ms.append(median(decode_ms))
        self.payload_bytes.append(len(encoded.data))
        self.entropy_bytes.append(order0_entropy_bytes(encoded.data, specification))


@dataclass(frozen=True)
class Kept:
    """What an encoder keeps for the next round: what it left out, and its own memory."""

    residual: NamedArrays | None = None
    memory: bytes = b""


@dataclass(frozen=True)
class Coded:
    """A payload, what its receiver makes of it, and what the sender keeps."""

    payload: bytes
    decoded: NamedArrays
    kept: Kept


class Coder(Protocol):
    """Makes the payloads of both directions; `base` is the head that both ends hold already.

    With `whole` the newest version's payload is all that a site which was away needs.
    """

    whole: bool

    def encode_update(
        self, trained: NamedArrays, base: NamedArrays, kept: Kept, measurements: CodecMeasurements | None
    ) -> Coded:
        """Return a site's update; `decoded` is what counts in the mean. Given `measurements` are added to."""

    def encode_version(self, mean: NamedArrays, base: NamedArrays, kept: Kept) -> Coded:
        """Return the broadcast of the updates' mean; `decoded` is the head that all have then."""


class DeltaCoder:
    """What production sites and aggregator send: deltas, and whatever they left out the next time.

    Sites shrink an update whose norm exceeds `limit`.
    """

    whole = False

    def __init__(
        self,
        method: str,
        uplink: str,
        downlink: str,
        specification: HeadSpecification,
        limit: float = math.inf,
    ) -> None:
        self._method = method
        self._limit = limit
        require_carrying_codec(method, downlink)
        self._uplink, self._downlink = delta_codec_named(uplink), delta_codec_named(downlink)
        self._specification = specification

    def encode_update(
        self, trained: NamedArrays, base: NamedArrays, kept: Kept, measurements: CodecMeasurements | None
    ) -> Coded:
        """See `Coder`."""
        delta = change_to_send(self._method, trained, base, kept.residual, self._specification)
        if measurements is not None:
            wanted = what_to_send(self._uplink, delta, kept.residual)
            measurements.take(self._uplink, wanted, kept.memory, self._specification)
        return self._coded(
            compress_within(self._limit, self._uplink, delta, kept.residual, kept.memory, self._specification)
        )

    def encode_version(self, mean: NamedArrays, base: NamedArrays, kept: Kept) -> Coded:
        """See `Coder`."""
        made = compress(self._downlink, mean, kept.residual, kept.memory, self._specification)
        coded = self._coded(made)
        return replace(coded, decoded=apply_delta(base, made.decoded, self._specification))

    def _coded(self, made: Compressed) -> Coded:
        return Coded(made.encoded, made.decoded, Kept(made.residual, made.memory))


class WholeHeadCoder:
    """Whole heads, compressed by a codec, without deltas and without error feedback, as in the papers."""

    whole = True

    def __init__(self, uplink: str, downlink: str, specification: HeadSpecification) -> None:
        self._uplink, self._downlink = codec_named(uplink), codec_named(downlink)
        self._specification = specification

    def encode_update(
        self, trained: NamedArrays, base: NamedArrays, kept: Kept, measurements: CodecMeasurements | None
    ) -> Coded:
        """See `Coder`."""
        if measurements is not None:
            measurements.take(self._uplink, trained, b"", self._specification)
        return self._encode(self._uplink, trained)

    def encode_version(self, mean: NamedArrays, base: NamedArrays, kept: Kept) -> Coded:
        """See `Coder`."""
        return self._encode(self._downlink, mean)

    def _encode(self, codec: Codec, head: NamedArrays) -> Coded:
        encoded = encode_head(codec, head, self._specification).data
        return Coded(encoded, decode_head(encoded, self._specification), Kept())


def codecs_of(text: str) -> tuple[str, str]:
    """Return uplink and downlink codec of `UP/DOWN`, or of one name for both.

    Raises InvalidInputError for an unknown codec, or a mixture of whole heads and deltas.
    """
    uplink, _, downlink = text.partition("/")
    downlink = downlink or uplink
    if codec_named(uplink).whole_head != codec_named(downlink).whole_head:
        raise InvalidInputError(
            f"codecs {text!r}: one sends whole heads and the other deltas; give two of a kind"
        )
    return uplink, downlink


def coder_of(
    method: str, uplink: str, downlink: str, specification: HeadSpecification, limit: float = math.inf
) -> Coder:
    """Return the coder that sends a method's heads with these codecs; deltas are shrunk to norm `limit`."""
    if codec_named(uplink).whole_head:
        return WholeHeadCoder(uplink, downlink, specification)
    return DeltaCoder(method, uplink, downlink, specification, limit)
