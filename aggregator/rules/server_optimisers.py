"""What the rules have in common that take the mean for a gradient."""

from collections.abc import Callable

import numpy as np

from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Floats, RuleState, Updates
from fedmedclip.aggregator.rules.weighted_mean import mean_of
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

# The square of a float32 may be larger than any.
_LARGEST = float(np.finfo(np.float32).max)

Step = Callable[[Floats, dict[str, Floats]], Floats]
"""The mean of one array and what is kept for it (by name, changed in place) to the step of that array."""


def optimiser(first: dict[str, float], step: Step) -> Aggregate:
    """Return the rule that gives each array of the mean to `step`, with what it keeps.

    `first` names what is kept and its value before the first round; each takes a head in float32. Arrays that
    each round measures anew are no gradient: of these the mean counts.
    """

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        mean, delta = mean_of(updates, specification), NamedArrays()
        kept: RuleState = {}
        for tensor in specification.tensors:
            if tensor.measured:
                delta[tensor.name] = mean[tensor.name]
                continue
            memory = {
                name: state[f"{name}/{tensor.name}"].astype(np.float64)
                if state
                else np.full(tensor.shape, value, dtype=np.float64)
                for name, value in first.items()
            }
            moved = step(mean[tensor.name].astype(np.float64), memory)
            delta[tensor.name] = moved.astype(np.float32)
            for name, array in memory.items():
                kept[f"{name}/{tensor.name}"] = np.clip(array, -_LARGEST, _LARGEST).astype(np.float32)
        return Aggregated(delta, kept)

    return aggregate
