"""The weighted median of each value by itself."""

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.clipped_mean import FEW, mean_of_few
from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Floats, Rule, RuleState, Updates
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.named_options import NameWithOptions


def median(values: npt.NDArray[np.float32], weights: Floats) -> npt.NDArray[np.float32]:
    """Return the weighted median of each column: (sites, values) and (sites,) to (values,).

    Half of the weight lies on either side of it; where two values are as good, it is their mean.
    """
    order = np.argsort(values, axis=0, kind="stable")
    below = np.cumsum(weights[order], axis=0)
    half = below[-1] / 2
    columns = np.arange(values.shape[1])
    lower = values[order[(below < half).sum(axis=0), columns], columns].astype(np.float64)
    upper = values[order[np.minimum((below <= half).sum(axis=0), len(values) - 1), columns], columns]
    found: npt.NDArray[np.float32] = ((lower + upper) / 2).astype(np.float32)
    return found


def coordinate_median(name: NameWithOptions) -> Aggregate:
    """Take the weighted median of each value (Yin et al. 2018, "Byzantine-robust distributed learning").

    `weights=equal` (as in the paper) counts sites alike; `weights=given` by their weight.

    Bears any hostile sites that have less than half of the weight: with equal weights 2 of 5, 4 of 10.
    Memory: all updates. Where all are honest and have different data it costs most of all rules here: the
    median of skewed values is far from their mean, and small changes that few sites make are lost.
    """
    equal = name.take_choice("weights", ("equal", "given")) == "equal"

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if len(updates) < FEW:
            return mean_of_few(updates, specification)
        weights = np.array([1.0 if equal else update.weight for update in updates])
        found = np.empty(specification.size, dtype=np.float32)
        for part, values in arithmetic.blocks(updates, specification):
            found[part] = median(values, weights)
        return Aggregated(arithmetic.unflattened(found, specification))

    return aggregate


RULE = Rule(coordinate_median)
