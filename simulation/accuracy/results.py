"""From runs to figures: every score of every method by test set and classifier, over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import fmean, stdev

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.accuracy.runs import Run
from fedmedclip.simulation.accuracy.scores import (
    ReliabilityBin,
    Scores,
    negative_class,
    net_benefit,
    reliability,
    score,
)
from fedmedclip.simulation.accuracy.significance import Comparison, compare, compare_balanced, holm
from fedmedclip.simulation.federation.evaluation import CLASSIFIERS
from fedmedclip.simulation.federation.experiment import Regime
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.virtual_sites import VirtualSites

SITES = "sites"
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")
HEADLINE = {SITES: "ensemble", GLOBAL_TEST: "shared"}
"""What a method is judged by: at a site by all that it has there, elsewhere by what it shares."""

Integers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


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

    Private head and ensemble on the global test are the mean over the sites whose heads they are. Bytes are
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


@dataclass(frozen=True)
class Evidence:
    """Finished runs by (case identity, seed), and what they were made from: `sites` by seed."""

    pool: FeaturePool
    class_names: tuple[str, ...]
    seeds: tuple[int, ...]
    sites: Mapping[int, VirtualSites]
    runs: Mapping[tuple[str, int], Run]

    def of(self, case: Case) -> list[Run]:
        """Return a case's runs, one per seed."""
        return [self.runs[case.identity, seed] for seed in self.seeds]

    def images(self, part: str, seed: int, left_out: str | None = None) -> tuple[Integers, Integers]:
        """Return the groups of a part's images, equal numbers for one group, and their labels."""
        if part.startswith(GLOBAL_TEST):
            images = self.pool.global_test
            assert images is not None
            return self._global_groups, images.labels
        site = next(site for site in self.sites[seed].sites if site.name == part)
        chosen = site.test if left_out is None else site.images
        return self.pool.groups[chosen], self.pool.labels[chosen]

    @cached_property
    def _global_groups(self) -> Integers:
        """Groups of the global test, those with a common embedding joined: copies need not be named."""
        images, groups = self.pool.global_test, self.pool.global_groups
        assert images is not None
        _, copies = np.unique(images.embeddings, axis=0, return_inverse=True)
        return copies.ravel().astype(np.int64) if groups is None else joined(groups, copies.ravel())

    def probabilities(self, run: Run, part: str, classifier: str) -> Probabilities | None:
        """Return float32 (images, classes), None where the method has no such classifier."""
        return run.probabilities(part, classifier, len(self.class_names))

    def pooled(self, case: Case, test_set: str) -> tuple[Probabilities, Integers, Integers]:
        """Return the headline's probabilities, labels and groups over all seeds (and all sites)."""
        rows: list[tuple[Probabilities, Integers, Integers]] = []
        for run in self.of(case):
            for part in test_parts(run, test_set):
                found = self.probabilities(run, part, HEADLINE[test_set])
                assert found is not None
                groups, labels = self.images(part, run.seed)
                rows.append((found, labels, groups))
        return (
            np.concatenate([row[0] for row in rows]),
            np.concatenate([row[1] for row in rows]),
            np.concatenate([row[2] for row in rows]),
        )


def test_parts(run: Run, test_set: str) -> list[str]:
    """Return a run's parts that make up a test set: `sites`, `global_test`, or one site."""
    match test_set:
        case "sites":
            return [part for part in run.parts if not part.startswith(GLOBAL_TEST)]
        case _:
            return [part for part in run.parts if part == test_set]


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


Comparisons = dict[str, Comparison]
"""By the label of the case that is compared with the reference."""


def comparisons(
    evidence: Evidence, cases: Sequence[Case], reference: Case, test_set: str
) -> tuple[Comparisons, Comparisons]:
    """Compare every other case with the reference on a test set of all seeds together.

    Returns the comparisons of accuracy and those of balanced accuracy. Cases, or a reference, without an
    answer there are left out.
    """
    others = [(case.label, case, reference) for case in cases if case != reference]
    return compare_pairs(evidence, others, test_set)


def beside_alone(evidence: Evidence, cases: Sequence[Case]) -> tuple[Comparisons, Comparisons]:
    """Compare each federated case with the same method trained at each site alone, on the sites' tests.

    That is what federating gives; cases without such a row are left out.
    """
    alone = {case.method: case for case in reversed(cases) if case.regime == "local-only"}
    pairs = [
        (case.label, case, alone[case.method])
        for case in cases
        if case.regime == "federated" and case.method in alone
    ]
    return compare_pairs(evidence, pairs, SITES)


def compare_pairs(
    evidence: Evidence, pairs: Sequence[tuple[str, Case, Case]], test_set: str
) -> tuple[Comparisons, Comparisons]:
    """Compare the first case of each (name, case, reference) with the second; accuracy, balanced accuracy.

    Holm's correction is over all pairs. Pairs without an answer there are left out.
    """
    plain, balanced = {}, {}
    for name, case, reference in pairs:
        if not all(test_parts(evidence.of(one)[0], test_set) for one in (case, reference)):
            continue
        probabilities, labels, groups = evidence.pooled(case, test_set)
        of_reference, _, _ = evidence.pooled(reference, test_set)
        correct = probabilities.argmax(axis=1) == labels
        before = of_reference.argmax(axis=1) == labels
        seed = derive_seed(0, purpose=f"bootstrap {test_set} {name}")
        plain[name] = compare(correct, before, groups, seed)
        balanced[name] = compare_balanced(correct, before, groups, labels, seed)
    return holm(plain), holm(balanced)


def joined(groups: Integers, others: Integers) -> Integers:
    """Return groups (N,) in which whoever shares either of the two groups (N,) is together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    _, first = np.unique(groups, return_inverse=True)
    _, second = np.unique(others, return_inverse=True)
    size = int(first.max()) + int(second.max()) + 2
    edges = coo_matrix((np.ones(len(first)), (first, first.max() + 1 + second)), shape=(size, size))
    _, components = connected_components(edges, directed=False)
    found: Integers = components[first].astype(np.int64)
    return found


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
        name: _score(found[name], labels.tobytes(), evidence.class_names)
        for name in CLASSIFIERS
        if name in found
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
