"""Krum and multi-Krum: only the updates that have the nearest neighbours count."""

from collections.abc import Sequence

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.clipped_mean import FEW, mean_of_few
from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Remark, Rule, RuleState, Updates
from fedmedclip.aggregator.rules.weighted_mean import counted_alike, mean_of
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.named_options import NameWithOptions

MOST_HOSTILE = range(1, 10_001)


def scores(distances: Sequence[Sequence[float]], among: Sequence[int], hostile: int) -> dict[int, float]:
    """Return the sum of the squared distances to the nearest others, for each of the sites `among`.

    The nearest are all but `hostile` and two (Blanchard et al. 2017), at least one.
    """
    neighbours = max(1, len(among) - hostile - 2)
    found = {}
    for site in among:
        nearest = sorted(distances[site][other] for other in among if other != site)[:neighbours]
        total = 0.0
        for far in nearest:
            total += far * far
        found[site] = total
    return found


def _chosen(name: NameWithOptions, hostile: int, most: int | None) -> Aggregate:
    def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
        if len(updates) < FEW:
            return mean_of_few(updates, specification)
        found = scores(arithmetic.distances(updates, specification), range(len(updates)), hostile)
        kept = max(1, len(updates) - hostile) if most is None else min(most, len(updates))
        ranked = sorted(found, key=lambda site: (found[site], site))
        best, worst = found[ranked[0]], ranked[kept:]
        remarks = tuple(
            Remark(
                updates[site].site, "rejected",
                f"its neighbours are far: Krum's score is {found[site]:.3g}, the best {best:.3g}",
            )
            for site in sorted(worst)
        )  # fmt: skip
        mean = mean_of(counted_alike([updates[site] for site in sorted(ranked[:kept])]), specification)
        return Aggregated(mean, {}, remarks)

    return aggregate


def krum(name: NameWithOptions) -> Aggregate:
    """Take the one update whose nearest others are nearest (Blanchard et al. 2017).

    Bears `hostile` (1) sites where there are 2 * hostile + 3 sites or more, so
    5 for one. Memory: blocks of all updates, 64 MiB at most;
    the time grows with the square of the sites. Where all are honest and have different
    data it costs the most: a round learns from one site alone, often the same.
    """
    return _chosen(name, name.take_integer("hostile", 1, MOST_HOSTILE), 1)


def multi_krum(name: NameWithOptions) -> Aggregate:
    """Take the mean of the updates with the best scores: all but `hostile` (1), or `keep` of them.

    Bears as many as Krum. Memory: as Krum. Sites count alike. Where all are honest and have different data,
    it leaves out whoever is least like the others, round after round.
    """
    hostile = name.take_integer("hostile", 1, MOST_HOSTILE)
    keep = name.take_integer("keep", 1, MOST_HOSTILE) if name.has("keep") else None
    return _chosen(name, hostile, keep)


KRUM, MULTI_KRUM = Rule(krum), Rule(multi_krum)
