"""Low rank within a budget of bytes: rank and bits follow from the budget and from how fast the head learns.

The size of what is to be sent, against the largest so far, tells how fast that is: steps shrink as learning
rates fall and a head settles. A settled head gets down to a quarter of the budget.
"""

import logging
import struct
from dataclasses import dataclass

from protocol.codecs.codec import Encoded
from protocol.codecs.groups import Group, groups_of
from protocol.codecs.low_rank import IDENTIFIER, LARGEST_RANK, LowRankCodec
from protocol.codecs.scales import mean_magnitudes
from protocol.errors import HeadError
from protocol.head import HeadSpecification, NamedArrays

log = logging.getLogger("fedmedclip.codec")

MESSAGE_OVERHEAD_BYTES = 160
"""What signature, frame and fields around an encoded head take in an MQTT payload, at most."""

# The peak is forgotten by a tenth per round, so that one large first step does not starve all others.
_FORGETTING = 0.9
_LEAST_SHARE = 0.25
# Bytes per symbol of factors in so many bits, after zstd.
_BYTES_PER_SYMBOL = {2: 0.165, 3: 0.25, 4: 0.38}
# From this rank on, finer factors keep more per byte than further columns.
_FINER_FROM_RANK = 16
_PEAK = struct.Struct("<d")


@dataclass(frozen=True)
class AutomaticCodec:
    """Messages of at most `budget` bytes, `MESSAGE_OVERHEAD_BYTES` of each for the envelope.

    The memory is the peak of the mean magnitudes so far (float64), then that of the low-rank codec.
    """

    name: str
    budget: int

    identifier = IDENTIFIER
    lossless = False
    whole_head = False

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`. Raises HeadError when the budget does not hold even an empty update."""
        limit = self.budget - MESSAGE_OVERHEAD_BYTES
        known = len(memory) >= _PEAK.size
        peak = _PEAK.unpack_from(memory)[0] if known else 0.0
        size = _mean_magnitude(arrays, specification)
        peak = max(size, peak * _FORGETTING) if 0.0 <= peak < float("inf") else size
        share = max(_LEAST_SHARE, size / peak) if peak else _LEAST_SHARE
        for rank, bits in _choices(groups_of(specification), limit * share):
            codec = LowRankCodec(self.name, rank, bits)
            encoded = codec.encode(arrays, specification, memory[_PEAK.size :])
            if len(encoded.data) <= limit:
                self._tell(rank, bits, len(encoded.data), share)
                return Encoded(encoded.data, _PEAK.pack(peak) + encoded.memory)
        raise HeadError(f"codec {self.name!r}: not even an empty update fits; state a larger budget")

    def _tell(self, rank: int, bits: int, size: int, share: float) -> None:
        if rank == 0 and share > 0:
            log.warning("%s: nothing but an empty update fits; state a larger budget", self.name)
        log.info(
            "%s: rank %d in %d bits, %d bytes, %.0f %% of the budget",
            self.name,
            rank,
            bits,
            size,
            100 * share,
        )


def _choices(groups: list[Group], target: float) -> list[tuple[int, int]]:
    """Return pairs of rank and bits: the one that should just fit the target, then ever smaller ones."""
    finer = [(rank, 4) for rank in range(LARGEST_RANK, _FINER_FROM_RANK - 1, -1)]
    ladder = [*finer, *((rank, 3) for rank in range(_FINER_FROM_RANK, 0, -1)), (1, 2), (0, 2)]
    fitting = [choice for choice in ladder if _expected_bytes(groups, *choice) <= target]
    return fitting or ladder[-1:]


def _expected_bytes(groups: list[Group], rank: int, bits: int) -> float:
    ranks = [min(rank, *group.shape) for group in groups]
    symbols = sum(own * (group.rows + group.columns) for own, group in zip(ranks, groups, strict=True))
    heads = sum(4 + own + len(group.vectors) for own, group in zip(ranks, groups, strict=True))
    return symbols * _BYTES_PER_SYMBOL[bits] + heads + 20


def _mean_magnitude(arrays: NamedArrays, specification: HeadSpecification) -> float:
    total = 0.0
    for tensor in specification.tensors:
        total += float(mean_magnitudes(arrays[tensor.name].reshape(1, -1))[0]) * tensor.size
    return total / max(1, specification.size)
