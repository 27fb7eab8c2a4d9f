"""As much as a budget of bytes holds: rank and bits follow from it and from how fast the head learns.

A budget that holds every value in 3, 4 or 8 bits is spent so. A smaller one is spent on low rank, where the
step between the integers decides how many bits a number takes after zstd, in finer grades than whole bits.
"""

import logging
from dataclasses import dataclass
from itertools import pairwise

from fedmedclip.protocol.codecs.codec import Encoded
from fedmedclip.protocol.codecs.dense import IntegerCodec
from fedmedclip.protocol.codecs.groups import Group, groups_of
from fedmedclip.protocol.codecs.low_rank import LARGEST_RANK, LowRankCodec
from fedmedclip.protocol.codecs.quantiser import Quantiser
from fedmedclip.protocol.codecs.spending import PEAK, share_and_peak
from fedmedclip.protocol.envelope import OVERHEAD_BYTES
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

log = logging.getLogger("fedmedclip.codec")

# Steps to a root mean square, and what a symbol then takes after zstd, in bytes: measured on trained deltas.
_COSTS = ((0.45, 0.150), (0.6, 0.194), (0.7, 0.212), (0.85, 0.245), (1.1, 0.287), (1.4, 0.328), (1.8, 0.374))
# A further column keeps more per byte than finer steps, until its own steps get too coarse.
_COARSEST_STEPS_FOR_ANOTHER_COLUMN = 0.7
_BITS = 4
# Bits of an integer for every value, and what it then takes after zstd, in bytes, scales included.
# (2 bits leave out more of a trained delta than low rank does in as many bytes.)
_COSTS_OF_ALL = ((8, 0.99), (4, 0.47), (3, 0.35))
_RETRY = 0.97


@dataclass(frozen=True)
class AutomaticCodec:
    """Messages of at most `budget` bytes, `OVERHEAD_BYTES` of each for the envelope.

    The memory is the peak of the mean magnitudes so far (`spending.py`), then that of the low-rank codec.
    """

    name: str
    budget: int
    carry: float = 1.0

    lossless = False
    whole_head = False

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`. Raises HeadError when the budget does not hold even an empty update."""
        limit = self.budget - OVERHEAD_BYTES
        share, peak = share_and_peak(arrays, specification, memory)
        encoded, chosen = self._all_values(arrays, specification, limit * share) or self._low_rank(
            arrays, specification, memory[PEAK.size :], limit * share, limit
        )
        log.info(
            "%s: %s, %d bytes, at %.0f %% of the budget", self.name, chosen, len(encoded.data), 100 * share
        )
        return Encoded(encoded.data, peak + encoded.memory)

    def _all_values(
        self, arrays: NamedArrays, specification: HeadSpecification, target: float
    ) -> tuple[Encoded, str] | None:
        """Return every value in as many bits as `target` bytes hold, and a word for it; None if in none."""
        for bits, cost in _COSTS_OF_ALL:
            if specification.size * cost <= target:
                encoded = IntegerCodec(self.name, Quantiser(bits)).encode(arrays, specification, b"")
                if len(encoded.data) <= target:
                    return encoded, f"every value in {bits} bits"
        return None

    def _low_rank(
        self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes, target: float, limit: int
    ) -> tuple[Encoded, str]:
        """Return what low rank makes of about `target` bytes, at most `limit`, and a word for it."""
        groups = groups_of(specification)
        while True:
            rank, steps = _rank_and_steps(groups, target)
            encoded = LowRankCodec(self.name, rank, _BITS, steps).encode(arrays, specification, memory)
            if len(encoded.data) <= limit:
                break
            if rank == 0:
                raise HeadError(f"codec {self.name!r}: not even an empty update fits; state a larger budget")
            target *= min(_RETRY, limit / len(encoded.data))
        if rank == 0 and any(array.any() for array in arrays.values()):
            log.warning("%s: nothing but an empty update fits; state a larger budget", self.name)
        bits = 8 * len(encoded.data) / max(1, _heads_and_symbols(groups, rank)[1])
        return encoded, f"rank {rank}, {bits:.1f} bits a number"


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
