"""The weighted mean: FedAvg."""

from collections.abc import Mapping

import numpy as np

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.rule import (
    Aggregate,
    Aggregated,
    Remark,
    Rule,
    RuleState,
    SiteUpdate,
    Updates,
)
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.named_options import NameWithOptions


def mean_of(
    updates: Updates, specification: HeadSpecification, factors: Mapping[str, float] | None = None
) -> NamedArrays:
    """Return sum(weight * factor * delta) / sum(weight), accumulated in float64 in the order given.

    No value of a delta counts for more than its array's `largest_change`. One update is in memory at a time.
    `factors` are by site, 1 where none is given. Raises ValueError when there is no update.
    """
    total_weight = 0.0
    total = arithmetic.zeros(specification)
    for update in updates:
        total_weight += update.weight
        counted = update.weight * (1.0 if factors is None else factors.get(update.site, 1.0))
        delta = update.delta()
        for tensor in specification.tensors:
            change = delta[tensor.name].astype(np.float64)
            if tensor.largest_change < np.inf:
                np.clip(change, -tensor.largest_change, tensor.largest_change, out=change)
            total[tensor.name] += counted * change
    if total_weight <= 0.0:
        raise ValueError("a round cannot be aggregated without updates")
    return {name: (array / total_weight).astype(np.float32) for name, array in total.items()}


def clip(updates: Updates, norms: Mapping[str, float], limit: float) -> tuple[dict[str, float], list[Remark]]:
    """Return by what each update that is longer than `limit` is multiplied, and the remarks on these."""
    factors = {update.site: limit / norms[update.site] for update in updates if norms[update.site] > limit}
    return factors, [
        Remark(site, "clipped", f"its norm is {norms[site]:.3g}, counted as {limit:.3g}") for site in factors
    ]


def norms_of(updates: Updates, specification: HeadSpecification) -> dict[str, float]:
    """Return the Euclidean norm of each site's delta; one is in memory at a time."""
    return {update.site: arithmetic.norm(update.delta(), specification) for update in updates}


def counted_alike(updates: Updates) -> tuple[SiteUpdate, ...]:
    """Return the updates with weight 1 each."""
    return tuple(SiteUpdate(update.site, 1.0, update.delta) for update in updates)


def weighted_mean(name: NameWithOptions) -> Aggregate:
    """With the number of training images as weight this is FedAvg (McMahan et al. 2017, algorithm 1).

    Bears no hostile site: one that sends enough takes the head where it wants. `norm=3` counts each update at
    no more than that Euclidean norm, which bounds what one can do in a round to its share times the norm.
    Memory: two heads. Costs nothing where all are honest. Right for statistics.
    """
    limit = name.take_number("norm", None, 1e-6, 1e12)

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if limit is None:
            return Aggregated(mean_of(updates, specification))
        factors, remarks = clip(updates, norms_of(updates, specification), limit)
        return Aggregated(mean_of(updates, specification, factors), {}, tuple(remarks))

    return aggregate


RULE = Rule(weighted_mean, suits_statistics=True)
