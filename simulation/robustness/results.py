"""From runs to rows, and to what each attack takes from each rule."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec

from fedmedclip.simulation.differences import Difference, mean_difference
from fedmedclip.simulation.robustness.attacks import NO_ATTACK
from fedmedclip.simulation.robustness.runs import ALONE, Case, Run

PLAIN_MEAN = "weighted_mean"
LAST_ROUNDS = 3
MOST_LOST, MOST_COST = 0.02, 0.005
"""What is asked of the default rule: the most that one hostile site may take, and that being robust may cost
where no one is hostile."""


class Row(msgspec.Struct, frozen=True):
    """One run. Accuracies are from 0 to 1: the mean over the honest sites, each on its own test images and
    counting alike, and over the last `LAST_ROUNDS` rounds.

    `accuracy` is the shared head's in this run, `clean_accuracy` that of the same rule where the same sites,
    also those that are hostile here, are all honest, `mean_accuracy` the same of the plain mean,
    `local_accuracy` that of the shared part of the heads where every site trains for itself, with no other.
    All four are over the same sites and images: those that are honest in this run. `ensemble_accuracy`,
    `clean_ensemble_accuracy` and `local_ensemble_accuracy` are of what a site answers with, its private head
    included. With attack `none` nobody is hostile, and `attackers` is 0. `refused` counts updates that were
    refused for their norm; `stopped` says why a run did not come to its end.
    """

    attack: str
    rule: str
    sites: int
    attackers: int
    seed: int
    accuracy: float
    clean_accuracy: float
    local_accuracy: float
    method: str
    mean_accuracy: float
    zero_shot_accuracy: float
    ensemble_accuracy: float
    clean_ensemble_accuracy: float
    local_ensemble_accuracy: float
    refused: int
    stopped: str


class Summary(msgspec.Struct, frozen=True):
    """An attack on a rule over the seeds.

    `lost` is `accuracy` less `clean_accuracy`; without an attack it is less `mean_accuracy`: what the rule
    costs. `stopped` counts the runs that did not come to their end.
    """

    method: str
    sites: int
    rule: str
    attack: str
    accuracy: float
    lost: Difference
    ensemble_lost: Difference
    less_local: Difference
    stopped: int


class Verdict(msgspec.Struct, frozen=True):
    """Whether a rule keeps what is asked of the default one: under its worst attack, and without any."""

    method: str
    sites: int
    rule: str
    worst_attack: str
    lost: Difference
    cost: Difference

    @property
    def withstands(self) -> bool:
        """Whether the worst attack takes at most `MOST_LOST` in the mean over the seeds."""
        return self.lost.mean >= -MOST_LOST

    @property
    def is_cheap(self) -> bool:
        """Whether it costs at most `MOST_COST` in the mean over the seeds."""
        return self.cost.mean >= -MOST_COST


def make_rows(cases: Sequence[Case], runs: Mapping[Case, Run]) -> list[Row]:
    """Return a row for each case; `runs` also holds the clean and local runs that it is held against."""
    return [_row(case, runs) for case in cases]


def reference_cases(case: Case) -> tuple[Case, Case, Case]:
    """Return what a case is held against: the same rule, the plain mean, and each site alone, all clean."""
    clean = case._replace(attack=NO_ATTACK, attackers=0)
    return clean, clean._replace(rule=PLAIN_MEAN), clean._replace(rule=ALONE)


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """Return one summary per method, number of sites, rule and attack, in the order of the rows."""
    groups: dict[tuple[str, int, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.sites, row.rule, row.attack), []).append(row)
    return [_summary(of_seeds) for of_seeds in groups.values()]


def verdicts(summaries: Sequence[Summary]) -> list[Verdict]:
    """Return what the attacks that were played say of each rule; nothing of a rule without attacks."""
    groups: dict[tuple[str, int, str], list[Summary]] = {}
    for summary in summaries:
        groups.setdefault((summary.method, summary.sites, summary.rule), []).append(summary)
    found = []
    for of_rule in groups.values():
        clean = [summary for summary in of_rule if summary.attack == NO_ATTACK]
        attacked = [summary for summary in of_rule if summary.attack != NO_ATTACK]
        if clean and attacked:
            worst = min(attacked, key=lambda summary: summary.lost.mean)
            found.append(
                Verdict(worst.method, worst.sites, worst.rule, worst.attack, worst.lost, clean[0].lost)
            )
    return found


def _row(case: Case, runs: Mapping[Case, Run]) -> Row:
    run = runs[case]
    clean, mean, alone = (runs[reference] for reference in reference_cases(case))
    honest = [site for site in run.shared if site not in run.hostile]

    def final(accuracies: Mapping[str, list[float]]) -> float:
        return round(fmean(fmean(accuracies[site][-LAST_ROUNDS:]) for site in honest), 6)

    return Row(
        case.attack,
        case.rule,
        case.sites,
        case.attackers,
        case.seed,
        final(run.shared),
        final(clean.shared),
        final(alone.shared),
        case.method,
        final(mean.shared),
        round(fmean(run.zero_shot[site] for site in honest), 6),
        final(run.ensemble),
        final(clean.ensemble),
        final(alone.ensemble),
        run.refused,
        run.stopped,
    )


def _summary(rows: Sequence[Row]) -> Summary:
    first = rows[0]
    clean = first.attack == NO_ATTACK
    return Summary(
        first.method,
        first.sites,
        first.rule,
        first.attack,
        fmean(row.accuracy for row in rows),
        mean_difference(
            [row.accuracy - (row.mean_accuracy if clean else row.clean_accuracy) for row in rows]
        ),
        mean_difference([row.ensemble_accuracy - row.clean_ensemble_accuracy for row in rows]),
        mean_difference([row.accuracy - row.local_accuracy for row in rows]),
        sum(bool(row.stopped) for row in rows),
    )
