"""What a sum under masks is of: the round's projection and bounds, and the change that the sum stands for."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.aggregation import decode_state, encode_state
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store, StoredAggregation
from fedmedclip.protocol.codecs.error_feedback import norm_of, within_norm
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.secure_aggregation.integers import largest_weight, to_values
from fedmedclip.protocol.secure_aggregation.projection import (
    Projection,
    Shared,
    linear_codec_of,
    projection_of,
)

log = logging.getLogger("fedmedclip.aggregator")

RULE = "secure sum"
"""What the aggregator records as the rule of a version that such a sum made."""
# So many times the largest value of a mean is the bound of the next round's values.
_ROOM = 4.0
_STEP = 16.0
_LEAST_BOUND = 2.0**-20
_LARGEST_BOUND = 2.0**20

Doubles = npt.NDArray[np.float64]


def first_bounds(plan: Plan, specification: HeadSpecification) -> list[float]:
    """Return each array's bound in a run's first round: the plan's, or the most that may count of it."""
    assert plan.secure is not None
    bound = plan.secure.bound
    return [min(bound, tensor.largest_change) for tensor in specification.tensors]


def bounds_of_round(store: Store, plan: Plan, specification: HeadSpecification) -> list[float]:
    """Return the bounds of the round that is open: as the sum of the round before has it."""
    first = first_bounds(plan, specification)
    found = store.aggregation()
    if found is None or found.rule != RULE:
        return first
    bounds = decode_state(found.state).get("bounds")
    return first if bounds is None or len(bounds) != len(first) else [float(bound) for bound in bounds]


def next_bounds(
    mean: Doubles, sizes: Sequence[int], before: Sequence[float], specification: HeadSpecification
) -> list[float]:
    """Return the next round's bounds: a power of two with room above what the mean (L,) has of each array.

    From the sum alone, so that they say nothing of one site. Where the mean is zero, values may all have been
    rounded away; where it is near the bound, many may have been cut: then the bound changes by a large step.
    """
    bounds: list[float] = []
    position = 0
    for size, bound, tensor in zip(sizes, before, specification.tensors, strict=True):
        largest = float(np.abs(mean[position : position + size]).max(initial=0.0))
        position += size
        if largest == 0:
            wanted = bound / _STEP
        elif largest >= bound / 2:
            wanted = bound * _STEP
        else:
            wanted = float(2.0 ** np.ceil(np.log2(_ROOM * largest)))
        bounds.append(min(max(wanted, _LEAST_BOUND), _LARGEST_BOUND, tensor.largest_change))
    return bounds


class RoundSum:
    """The map of the open round's updates, and what their sum makes of the head."""

    def __init__(self, plan: Plan, store: Store, head: GlobalHead) -> None:
        assert plan.secure is not None
        self._plan, self._secure, self._head = plan, plan.secure, head
        self.bounds = bounds_of_round(store, plan, head.specification)
        delta = head.inline_delta()
        self.based = delta is not None
        shared = Shared(head.version + 1, plan.seed, head.head(), delta, head.start_directions)
        self._projection: Projection = projection_of(linear_codec_of(plan), head.specification, shared)

    @property
    def length(self) -> int:
        """How many integers a site sends: those of the projection, and its weight."""
        return self._projection.length + 1

    def apply(self, round_number: int, total: npt.NDArray[np.int64], survivors: Sequence[str]) -> None:
        """Make the round's version of a sum (L + 1,). Raises AggregationError as `GlobalHead.apply`."""
        specification, count = self._head.specification, len(survivors)
        most = count * largest_weight(self._secure.bits)
        weight = int(np.clip(total[-1], count, most))
        if weight != total[-1]:
            log.error("round %d: the sum of weights is %d, taken as %d", round_number, total[-1], weight)
        each = np.repeat(self.bounds, self._projection.sizes)
        mean = np.clip(to_values(total[:-1], each, weight), -each, each)
        limit, delta = self._plan.maximum_update_norm, self._projection.lift(mean)
        if (norm := norm_of(delta)) > limit:
            log.warning("round %d: the mean's norm is %.3g, shortened to %.3g", round_number, norm, limit)
            delta = within_norm(delta, limit)
        bounds = next_bounds(mean, self._projection.sizes, self.bounds, specification)
        self.record(round_number, delta, bounds, survivors)

    def skip(self, round_number: int) -> None:
        """Make the round's version with the head of the one before, and of nobody's update."""
        specification = self._head.specification
        zeros = specification.from_bytes(bytes(4 * specification.size))
        self.record(round_number, zeros, self.bounds, ())

    def record(
        self, round_number: int, delta: NamedArrays, bounds: Sequence[float], survivors: Sequence[str]
    ) -> None:
        """Store a version made of `delta`, with the bounds of the round after it."""
        state = encode_state({"bounds": np.array(bounds, np.float64)})
        self._head.apply(
            round_number, delta, StoredAggregation(RULE, round_number, state, b"[]"), tuple(survivors)
        )
