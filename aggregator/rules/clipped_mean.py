"""The weighted mean of updates that are no longer than a usual one."""

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
from fedmedclip.aggregator.rules.weighted_mean import clip, mean_of, norms_of
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.named_options import NameWithOptions

FEW = 3
"""Below so many sites nobody can be told from the others, and robust rules are `mean_of_few`."""
_FACTOR_OF_FEW = 2.0


def clipped(
    updates: Updates, specification: HeadSpecification, factor: float, weight: float | None = None
) -> Aggregated:
    """Return the weighted mean of updates cut to `factor` times the median of their norms.

    Sites without any change do not count for the median: they say nothing of how long a change is. Weights
    are cut to `weight` times their median.
    """
    light, remarks = (updates, []) if weight is None else lightened(updates, weight)
    norms = norms_of(updates, specification)
    moved = [length for length in norms.values() if length > 0.0]
    factors: dict[str, float] = {}
    if moved:
        factors, longer = clip(updates, norms, factor * arithmetic.lower_median(moved))
        remarks += longer
    return Aggregated(mean_of(light, specification, factors), {}, tuple(remarks))


def lightened(updates: Updates, factor: float) -> tuple[Updates, list[Remark]]:
    """Return the updates with weights of at most `factor` times the median, and remarks on the lightened."""
    most = factor * arithmetic.lower_median([update.weight for update in updates])
    light = [SiteUpdate(update.site, min(update.weight, most), update.delta) for update in updates]
    return light, [
        Remark(update.site, "clipped", f"it weighs {update.weight:.3g}, counted as {most:.3g}")
        for update in updates
        if update.weight > most
    ]


def mean_of_few(updates: Updates, specification: HeadSpecification) -> Aggregated:
    """Return the mean of one or two updates, the longer cut to twice the shorter.

    What every robust rule does with fewer than three sites: the difference of two sites does not say which
    of them is right, but neither is taken for more than twice as long as the other.
    """
    return clipped(updates, specification, _FACTOR_OF_FEW)


def clipped_mean(name: NameWithOptions) -> Aggregate:
    """Clip each update at `factor` (1) times the median of the norms, then take the weighted mean.

    As in Sun et al. 2019, "Can you really backdoor federated learning?", with a bound that follows the round.
    `weight=3` lets no site weigh more than three times the median of the weights. Medians count sites alike
    and are the lower one of an even number.

    Bears hostile sites by their weight, as long as fewer than half of the sites are hostile: who has the
    share p of a round moves the step by p times `factor` usual norms at most, however long its update is. It
    does not turn away a wrong direction: a site that flips its signs costs twice its share of the step.
    Memory: two heads, streaming, each update read twice. Where all are honest and have different data, sites
    with longer updates than the median's count for less; with `factor=2` hardly any.
    """
    factor = name.take_number("factor", 1.0, 0.1, 100.0)
    weight = name.take_number("weight", None, 1.0, 1e6)
    assert factor is not None

    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if len(updates) < FEW:
            return mean_of_few(updates, specification)
        return clipped(updates, specification, factor, weight)

    return aggregate


RULE = Rule(clipped_mean)
