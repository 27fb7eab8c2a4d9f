"""From runs to figures: every score of every method by test set and classifier, over the seeds."""

from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean, stdev

import msgspec
import numpy as np

from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.accuracy.evidence import (
    HEADLINE,
    SITES,
    Evidence,
    Integers,
    Probabilities,
    test_parts,
)
from fedmedclip.simulation.accuracy.runs import SCORED, Run
from fedmedclip.simulation.accuracy.scores import (
    ReliabilityBin,
    Scores,
    negative_class,
    net_benefit,
    reliability,
    score,
)
from fedmedclip.simulation.federation.experiment import Regime
from fedmedclip.simulation.federation.folder import GLOBAL_TEST

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")


class Spread(msgspec.Struct, frozen=True):
    """A figure over the seeds: mean, standard deviation (0 with one seed), and the values in their order."""

    mean: float
    std: float
    values: tuple[float, ...]


# By classifier, then by metric.
ScoreTable = dict[str, dict[str, Spread]]


class DecisionCurve(msgspec.Struct, frozen=True):
    """Net benefit at each threshold, of acting on `finding`; and of acting on everyone."""

    finding: str
    net_benefit: list[float]
    everyone: list[float]


class TestSet(msgspec.Struct, frozen=True):
    """The headline classifier on the test images of all seeds together."""

    __test__ = False

    confusion: tuple[tuple[int, ...], ...]
    reliability: list[ReliabilityBin]
    decision: list[DecisionCurve]


class CurvePoint(msgspec.Struct, frozen=True):
    """After a round, mean over the seeds: bytes so far per site, both ways, and accuracies."""

    bytes_so_far: float
    ensemble: float
    shared: float
    global_shared: float | None


class MethodResult(msgspec.Struct, frozen=True):
    """All of a method. `scores` is by test set: each natural site, `sites` (their mean) and `global_test`.

    Private head and ensemble on the global test are the mean over the sites whose heads they are; `adapted`
    is a head that a method made for these images of the shared one, without their labels. Bytes are
    per site that takes part and round, joining spread over the rounds; `target_bytes` are those of the
    reference set, once for each site. `seconds` is the mean of a run's. `regime` says who trains, `rule` how
    updates are averaged (None: nothing is). `selected_rounds` are those whose heads are scored, one per seed.
    `worst_site` is the accuracy at the site where it is lowest, which may be another one under every seed.
    """

    label: str
    method: str
    scores: dict[str, ScoreTable]
    pooled: dict[str, TestSet]
    curve: list[CurvePoint]
    uplink_bytes_per_round: float
    downlink_bytes_per_round: float
    target_bytes: int
    seconds: float
    regime: Regime
    rule: str | None
    selected_rounds: tuple[int, ...]
    worst_site: Spread

    @property
    def bytes_per_round(self) -> float:
        """Both directions."""
        return self.uplink_bytes_per_round + self.downlink_bytes_per_round

    def headline(self, test_set: str, metric: str = "accuracy") -> Spread | None:
        """Return a metric of the classifier that a method is judged by; None where there is none."""
        kind = GLOBAL_TEST if test_set == GLOBAL_TEST else SITES
        return self.scores.get(test_set, {}).get(HEADLINE[kind], {}).get(metric)


def method_result(evidence: Evidence, case: Case) -> MethodResult:
    """Return all figures of a case."""
    runs = evidence.of(case)
    test_sets = [SITES, *([GLOBAL_TEST] if GLOBAL_TEST in runs[0].parts else [])]
    return MethodResult(
        case.label,
        case.method,
        _score_tables(evidence, runs, by_site=case.dealing.sites is None),
        {name: _test_set(evidence, case, name) for name in test_sets},
        _curve(runs),
        fmean(sum(run.uplink_by_message.values()) / run.turns for run in runs),
        fmean(sum(run.downlink_by_message.values()) / run.turns for run in runs),
        runs[0].target_bytes,
        fmean(run.seconds for run in runs),
        case.regime,
        case.rule_name,
        tuple(run.selected_round for run in runs),
        _worst_site(evidence, runs),
    )


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of the seeds' values."""
    rounded = tuple(round(value, 6) for value in values)
    std = stdev(values) if len(values) > 1 else 0.0
    return Spread(round(fmean(values), 6), round(std, 6), rounded)


def left_out_scores(evidence: Evidence, case: Case) -> ScoreTable:
    """Return the scores on all images of the site that the case leaves out, by classifier."""
    assert case.left_out is not None
    of_seeds = [_scores(evidence, run, case.left_out, left_out=case.left_out) for run in evidence.of(case)]
    return _over_seeds(of_seeds)


class GroupCounts(msgspec.Struct, frozen=True):
    """How many groups the images are of; on the global test None without one."""

    images: int
    groups: int
    global_images: int | None
    global_groups: int | None


def group_counts(evidence: Evidence) -> GroupCounts:
    """Count the groups of all sites, and of the global test."""
    pool = evidence.pool
    images, groups = len(pool.labels), len(np.unique(pool.groups))
    if pool.global_test is None:
        return GroupCounts(images, groups, None, None)
    of_global, labels = evidence.images(GLOBAL_TEST, evidence.seeds[0])
    return GroupCounts(images, groups, len(labels), len(np.unique(of_global)))


# Scores of one run on one test set, by classifier.
_RunScores = dict[str, Scores]


def _score_tables(evidence: Evidence, runs: Sequence[Run], *, by_site: bool) -> dict[str, ScoreTable]:
    """Return the tables of all test sets; `by_site` also of each site that every seed tests."""
    of_seeds = [{part: _scores(evidence, run, part) for part in run.parts} for run in runs]
    tables = {
        part: _over_seeds([parts[part] for parts in of_seeds])
        for part in test_parts(runs[0], SITES)
        if by_site and all(part in parts for parts in of_seeds)
    }
    tables[SITES] = _mean_over_parts(
        [[parts[part] for part in test_parts(run, SITES)] for run, parts in zip(runs, of_seeds, strict=True)]
    )
    of_sites = [
        [scores for part, scores in parts.items() if part.startswith(f"{GLOBAL_TEST}@")] for parts in of_seeds
    ]
    with_global = GLOBAL_TEST in of_seeds[0]
    if with_global or of_sites[0]:
        shared = _over_seeds([parts[GLOBAL_TEST] for parts in of_seeds]) if with_global else {}
        tables[GLOBAL_TEST] = shared | (_mean_over_parts(of_sites) if of_sites[0] else {})
    return tables


def _worst_site(evidence: Evidence, runs: Sequence[Run]) -> Spread:
    return spread(
        [
            min(_scores(evidence, run, part)[HEADLINE[SITES]].accuracy for part in test_parts(run, SITES))
            for run in runs
        ]
    )


def _scores(evidence: Evidence, run: Run, part: str, left_out: str | None = None) -> _RunScores:
    _, labels = evidence.images(part, run.seed, left_out)
    found = run.parts[part]
    return {
        name: _score(found[name], labels.tobytes(), evidence.class_names) for name in SCORED if name in found
    }


@lru_cache(maxsize=4096)
def _score(probabilities: bytes, labels: bytes, class_names: tuple[str, ...]) -> Scores:
    """Score once what all methods share, as zero-shot, and what two classifiers of a method share."""
    rows = np.frombuffer(probabilities, np.float32).reshape(-1, len(class_names))
    return score(rows, np.frombuffer(labels, np.int64), class_names)


def _over_seeds(of_seeds: Sequence[_RunScores]) -> ScoreTable:
    return {
        classifier: {
            metric: spread(values)
            for metric in METRICS
            if None not in (values := [getattr(scores[classifier], metric) for scores in of_seeds])
        }
        for classifier in of_seeds[0]
    }


def _mean_over_parts(of_seeds: Sequence[Sequence[_RunScores]]) -> ScoreTable:
    """Return the seeds' spread of the mean over a seed's parts, each part counting alike."""
    table: ScoreTable = {}
    for classifier in of_seeds[0][0]:
        table[classifier] = {}
        for metric in METRICS:
            values = [[getattr(scores[classifier], metric) for scores in of_parts] for of_parts in of_seeds]
            if not any(None in of_seed for of_seed in values):
                table[classifier][metric] = spread([fmean(of_seed) for of_seed in values])
    return table


def _test_set(evidence: Evidence, case: Case, name: str) -> TestSet:
    probabilities, labels, _ = evidence.pooled(case, name)
    return TestSet(
        score(probabilities, labels, evidence.class_names).confusion,
        reliability(probabilities, labels),
        _decision_curves(probabilities, labels, evidence.class_names),
    )


def _decision_curves(
    probabilities: Probabilities, labels: Integers, names: Sequence[str]
) -> list[DecisionCurve]:
    """Return one curve for "anything found" where a class means nothing found, else one for each class."""
    negative = negative_class(names)
    if negative is not None:
        risks = {f"anything but {names[negative]}": (1 - probabilities[:, negative], labels != negative)}
    else:
        risks = {name: (probabilities[:, i], labels == i) for i, name in enumerate(names)}
    return [
        DecisionCurve(finding, net_benefit(risk, positive), net_benefit(np.ones_like(risk), positive))
        for finding, (risk, positive) in risks.items()
    ]


def _curve(runs: Sequence[Run]) -> list[CurvePoint]:
    points = []
    so_far = 0.0
    for rounds in zip(*(run.rounds for run in runs), strict=True):
        so_far += fmean(
            (figures.uplink_bytes + figures.downlink_bytes) / run.sites
            for figures, run in zip(rounds, runs, strict=True)
        )
        on_global = [figures.global_shared for figures in rounds if figures.global_shared is not None]
        points.append(
            CurvePoint(
                round(so_far, 1),
                fmean(figures.ensemble for figures in rounds),
                fmean(figures.shared for figures in rounds),
                fmean(on_global) if on_global else None,
            )
        )
    return points
