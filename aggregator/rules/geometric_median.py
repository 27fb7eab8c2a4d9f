"""The geometric median: the point whose distances to all updates have the smallest sum."""

import numpy as np

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.clipped_mean import FEW, lightened, mean_of_few
from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Remark, Rule, RuleState, Updates
from fedmedclip.aggregator.rules.weighted_mean import counted_alike
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.named_options import NameWithOptions

# A distance counts as at least so much of the usual norm: a site at the median would count without bound.
_SMOOTHING = 1e-3
# Whoever counts for less than so much of its own weight is named.
_REMARKABLE = 0.25


def geometric_median(name: NameWithOptions) -> Aggregate:
    """Find it by smoothed Weiszfeld steps: RFA (Pillutla et al. 2022), algorithm 2.

    From zero, where no site can put the first step, `passes` (8) times: the mean of the updates, weighted
    with weight / distance. `weights=equal` counts sites alike, `weights=given` by their weight, as RFA does.

    Bears hostile sites that have less than half of the weight. Memory: three heads, streaming; each update is
    read twice a pass. Where all are honest and have different data, sites far from the others count for less.
    """
    equal = name.take_choice("weights", ("equal", "given")) == "equal"
    most = name.take_number("weight", None, 1.0, 1e6)
    passes = name.take_integer("passes", 8, range(1, 101))

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if len(updates) < FEW:
            return mean_of_few(updates, specification)
        remarks: list[Remark] = []
        if equal:
            updates = counted_alike(updates)
        elif most is not None:
            updates, remarks = lightened(updates, most)
        weights = [update.weight for update in updates]
        found = arithmetic.zeros(specification)
        shares, smallest = [0.0] * len(updates), 0.0
        for number in range(passes):
            away = [arithmetic.distance(update.delta(), found, specification) for update in updates]
            if number == 0:
                # From zero they are the norms.
                smallest = _SMOOTHING * arithmetic.lower_median(away) or 1.0
            pulls = [weight / max(smallest, far) for weight, far in zip(weights, away, strict=True)]
            total = 0.0
            for pull in pulls:
                total += pull
            shares = [pull / total for pull in pulls]
            found = arithmetic.zeros(specification)
            for update, share in zip(updates, shares, strict=True):
                delta = update.delta()
                for tensor_name, array in found.items():
                    array += share * delta[tensor_name].astype(np.float64)
        whole = 0.0
        for weight in weights:
            whole += weight
        remarks += [
            Remark(update.site, "clipped", f"far from the others, it counted for {share:.1%} of the step")
            for update, share, weight in zip(updates, shares, weights, strict=True)
            if share < _REMARKABLE * weight / whole
        ]
        return Aggregated(arithmetic.rounded(found), {}, tuple(remarks))

    return aggregate


RULE = Rule(geometric_median)
