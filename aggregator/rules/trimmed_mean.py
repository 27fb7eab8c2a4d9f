"""The mean of each value without the largest and the smallest."""

import numpy as np

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.clipped_mean import FEW, mean_of_few
from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Remark, Rule, RuleState, Updates
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.named_options import NameWithOptions

# A site of which so much is left out has no part in the mean.
_REJECTED_SHARE = 0.9


def trimmed_at_each_end(sites: int, share: float) -> int:
    """Return how many values are left out at either end: `share` of the sites, at least 1; some stay."""
    return min(max(1, int(share * sites + 1e-9)), (sites - 1) // 2)


def trimmed_mean(name: NameWithOptions) -> Aggregate:
    """Leave out `share` (0.2) of the sites at each end of each value (Yin et al. 2018), then take the mean.

    Sites count alike: a weight would say how much of a site is left out, too. At least one site is left out
    at each end.

    Bears as many hostile sites as are left out at one end: 1 of 5, 2 of 10. Memory: blocks of all updates, 64
    MiB at most. Where all are honest and have different data, what only one site learns is lost.
    """
    share = name.take_number("share", 0.2, 0.0, 0.49)
    assert share is not None

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if len(updates) < FEW:
            return mean_of_few(updates, specification)
        ends = trimmed_at_each_end(len(updates), share)
        outside = np.zeros(len(updates), dtype=np.int64)
        found = np.empty(specification.size, dtype=np.float32)
        for part, values in arithmetic.blocks(updates, specification):
            order = np.argsort(values, axis=0, kind="stable")
            for place in (*range(ends), *range(len(values) - ends, len(values))):
                outside += np.bincount(order[place], minlength=len(values))
            kept = np.zeros(values.shape[1], dtype=np.float64)
            for place in range(ends, len(values) - ends):
                kept += np.take_along_axis(values, order[place][np.newaxis], axis=0)[0]
            found[part] = (kept / (len(values) - 2 * ends)).astype(np.float32)
        remarks = [
            Remark(
                update.site, "rejected", f"{left_out / specification.size:.0%} of its values are outermost"
            )
            for update, left_out in zip(updates, outside, strict=True)
            if left_out > _REJECTED_SHARE * specification.size
        ]
        return Aggregated(arithmetic.unflattened(found, specification), {}, tuple(remarks))

    return aggregate


RULE = Rule(trimmed_mean)
