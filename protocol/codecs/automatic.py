"""Low rank within a budget of bytes: rank and steps follow from the budget and from how fast the head learns.

The size of what is to be sent, against the largest so far, tells how fast that is: steps shrink as learning
rates fall and a head settles. A settled head gets down to a quarter of the budget.
"""

import logging
import struct
from dataclasses import dataclass
from itertools import pairwise

from protocol.codecs.codec import Encoded
from protocol.codecs.groups import Group, groups_of
from protocol.codecs.low_rank import IDENTIFIER, LARGEST_RANK, LowRankCodec
from protocol.codecs.scales import mean_magnitudes
from protocol.envelope import OVERHEAD_BYTES
from protocol.errors import HeadError
from protocol.head import HeadSpecification, NamedArrays

log = logging.getLogger("fedmedclip.codec")

# The peak is forgotten by a tenth per round, so that one large first step does not starve all others.
_FORGETTING = 0.9
_LEAST_SHARE = 0.25
# Steps to a root mean square, and what a symbol then takes after zstd, in bytes: measured on trained deltas.
_COSTS = ((0.45, 0.150), (0.6, 0.194), (0.7, 0.212), (0.85, 0.245), (1.1, 0.287), (1.4, 0.328), (1.8, 0.374))
# A further column keeps more per byte than finer steps, until its own steps get too coarse.
_COARSEST_STEPS_FOR_ANOTHER_COLUMN = 0.7
_BITS = 4
_RETRY = 0.97
_PEAK = struct.Struct("<d")


@dataclass(frozen=True)
class AutomaticCodec:
    """Messages of at most `budget` bytes, `OVERHEAD_BYTES` of each for the envelope.

    The memory is the peak of the mean magnitudes so far (float64), then that of the low-rank codec.
    """

    name: str
    budget: int

    identifier = IDENTIFIER
    lossless = False
    whole_head = False

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`. Raises HeadError when the budget does not hold even an empty update."""
        groups = groups_of(specification)
        limit = self.budget - OVERHEAD_BYTES
        size = _mean_magnitude(arrays, specification)
        peak = max(size, _known_peak(memory) * _FORGETTING)
        share = max(_LEAST_SHARE, size / peak) if peak else _LEAST_SHARE
        target = limit * share
        while True:
            rank, steps = _rank_and_steps(groups, target)
            codec = LowRankCodec(self.name, rank, _BITS, steps)
            encoded = codec.encode(arrays, specification, memory[_PEAK.size :])
            if len(encoded.data) <= limit:
                break
            if rank == 0:
                raise HeadError(f"codec {self.name!r}: not even an empty update fits; state a larger budget")
            target *= _RETRY
        if rank == 0 and size > 0:
            log.warning("%s: nothing but an empty update fits; state a larger budget", self.name)
        log.info(
            "%s: rank %d, %.2f steps, %d bytes, at %.0f %% of the budget",
            self.name, rank, steps, len(encoded.data), 100 * share,
        )  # fmt: skip
        return Encoded(encoded.data, _PEAK.pack(peak) + encoded.memory)


def _rank_and_steps(groups: list[Group], target: float) -> tuple[int, float]:
    """Return the rank and the steps that should take `target` bytes; rank 0 when nothing is so small."""
    coarsest, finest = _COSTS[0], _COSTS[-1]
    wanted = _cost_of(_COARSEST_STEPS_FOR_ANOTHER_COLUMN)
    rank = 0
    while rank < LARGEST_RANK and _bytes(groups, rank + 1, wanted) <= target:
        rank += 1
    if rank == 0:
        return (1, coarsest[0]) if _bytes(groups, 1, coarsest[1]) <= target else (0, coarsest[0])
    heads, symbols = _heads_and_symbols(groups, rank)
    affordable = (target - heads) / symbols
    return rank, finest[0] if affordable >= finest[1] else _steps_at(affordable)


def _heads_and_symbols(groups: list[Group], rank: int) -> tuple[int, int]:
    ranks = [min(rank, *group.shape) for group in groups]
    symbols = sum(own * (group.rows + group.columns) for own, group in zip(ranks, groups, strict=True))
    heads = 20 + sum(4 + own + len(group.vectors) for own, group in zip(ranks, groups, strict=True))
    return heads, symbols


def _bytes(groups: list[Group], rank: int, cost: float) -> float:
    heads, symbols = _heads_and_symbols(groups, rank)
    return heads + symbols * cost


def _cost_of(steps: float) -> float:
    return next(cost for known, cost in _COSTS if known >= steps)


def _steps_at(cost: float) -> float:
    """Return the steps that cost so much per symbol, between those that were measured."""
    for (below, low), (above, high) in pairwise(_COSTS):
        if low <= cost <= high:
            return below + (above - below) * (cost - low) / (high - low)
    return _COSTS[0][0]


def _known_peak(memory: bytes) -> float:
    peak = _PEAK.unpack_from(memory)[0] if len(memory) >= _PEAK.size else 0.0
    return float(peak) if 0.0 <= peak < float("inf") else 0.0


def _mean_magnitude(arrays: NamedArrays, specification: HeadSpecification) -> float:
    total = 0.0
    for tensor in specification.tensors:
        total += float(mean_magnitudes(arrays[tensor.name].reshape(1, -1))[0]) * tensor.size
    return total / max(1, specification.size)
