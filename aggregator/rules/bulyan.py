"""Bulyan: Krum chooses sites, and of these each value near the median counts."""

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.clipped_mean import FEW, mean_of_few
from fedmedclip.aggregator.rules.krum import MOST_HOSTILE, scores
from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Remark, Rule, RuleState, Updates
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.named_options import NameWithOptions


def nearest_to_median(values: npt.NDArray[np.float32], kept: int) -> npt.NDArray[np.float32]:
    """Return the mean of the `kept` values of each column that are nearest to its median: (sites, values)
    to (values,).

    Of two windows that are as near, the lower one counts.
    """
    rows = np.sort(values.astype(np.float64), axis=0)
    middle = (rows[(len(rows) - 1) // 2] + rows[len(rows) // 2]) / 2
    windows = range(len(rows) - kept + 1)
    reach = np.stack([np.maximum(middle - rows[at], rows[at + kept - 1] - middle) for at in windows])
    start = reach.argmin(axis=0)
    total = np.zeros(rows.shape[1], dtype=np.float64)
    for place in range(kept):
        total += np.take_along_axis(rows, (start + place)[np.newaxis], axis=0)[0]
    return (total / kept).astype(np.float32)


def bulyan(name: NameWithOptions) -> Aggregate:
    """Choose all but 2 * `hostile` (1) sites by Krum, one after the other, then a trimmed mean of these.

    El Mhamdi et al. 2018, "The hidden vulnerability of distributed learning in Byzantium". Of the chosen
    sites, all but 2 * hostile values nearest to the median count. Sites count alike.

    Bears `hostile` sites where there are 4 * hostile + 3 or more: 7 for one; with fewer it still chooses, but
    nothing is proved. Memory: blocks of all updates, 64 MiB at most. Where all are honest and have different
    data it costs about as much as a median.
    """
    hostile = name.take_integer("hostile", 1, MOST_HOSTILE)

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if len(updates) < FEW:
            return mean_of_few(updates, specification)
        apart = arithmetic.distances(updates, specification)
        wanted, remaining = max(1, len(updates) - 2 * hostile), list(range(len(updates)))
        chosen: list[int] = []
        while len(chosen) < wanted:
            found = scores(apart, remaining, hostile)
            best = min(found, key=lambda site: (found[site], site))
            chosen.append(best)
            remaining.remove(best)
        kept = max(1, wanted - 2 * hostile)
        delta = np.empty(specification.size, dtype=np.float32)
        for part, values in arithmetic.blocks([updates[site] for site in sorted(chosen)], specification):
            delta[part] = nearest_to_median(values, kept)
        remarks = [
            Remark(updates[site].site, "rejected", "its neighbours are far: Krum did not choose it")
            for site in remaining
        ]
        return Aggregated(arithmetic.unflattened(delta, specification), {}, tuple(remarks))

    return aggregate


RULE = Rule(bulyan)
