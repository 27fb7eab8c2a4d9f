"""From runs to rows, and to what may be said: means over hospitals and seeds, and paired tests by group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.significance import (
    Comparison,
    compare,
    compare_balanced,
    holm,
    paired_bootstrap,
)
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.newcomer.labels import Labels
from fedmedclip.simulation.newcomer.runs import FEDERATED, LOCAL_ONLY, POOLED, Case, Experiment, Run

LOCAL_METHOD = "fedmedclip"
"""Whose heads the row `local-only` has, as in `bench accuracy`."""

HOSPITALS: Final = "hospitals"
ELSEWHERE: Final = "global_test"
Place = Literal["hospitals", "global_test"]


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One newcomer: shares of right answers on its own test images (0 to 1), and the mean recall of classes.

    `images` counts its training images by class, `sends` says whether its updates counted in the shared head,
    `classifier` what answered. Of a `missing_class` it had no image; `recall` is that class's.
    """

    method: str
    site: str
    labels_per_class: Labels
    seed: int
    accuracy: float
    balanced_accuracy: float
    images: dict[str, int]
    classifier: str
    sends: bool = False
    missing_class: str | None = None
    recall: float | None = None


class Point(msgspec.Struct, frozen=True):
    """A method at a number of labelled images: mean and standard deviation over hospitals and seeds.

    `low` and `high` bound the mean accuracy with 95 % confidence (bootstrap over groups).
    """

    method: str
    labels_per_class: Labels
    accuracy: float
    accuracy_std: float
    low: float
    high: float
    balanced_accuracy: float
    balanced_accuracy_std: float
    runs: int


class Finding(msgspec.Struct, frozen=True):
    """A federated method against the best of what a hospital has without it, at a number of labelled images.

    `other` is the most accurate there of zero-shot and of all heads that the hospital may train alone.
    `comparison` is of accuracy, `balanced` of balanced accuracy with the same other; their `p_corrected` hold
    over all numbers of labelled images of the method.
    """

    method: str
    labels_per_class: Labels
    other: str
    comparison: Comparison
    balanced: Comparison


class Missing(msgspec.Struct, frozen=True):
    """What becomes of a class that the newcomer has never seen: means over hospitals and seeds (0 to 1).

    `recall` is the share of that class's test images that are recognised, `accuracy` is over all images.
    """

    method: str
    labels_per_class: Labels
    missing_class: str
    recall: float
    recall_std: float
    accuracy: float
    runs: int


@dataclass(frozen=True)
class Evidence:
    """Finished runs, and what they were made from."""

    experiment: Experiment
    runs: Mapping[Case, Run]

    def right(self, case: Case) -> npt.NDArray[np.bool_]:
        """Return which test images (n,) are called rightly."""
        answers = np.array(self.runs[case].answers)
        right: npt.NDArray[np.bool_] = answers == self.experiment.test(case).labels
        return right


def name_of(case: Case) -> str:
    """Return the method as rows name it."""
    match case.way:
        case "federated":
            return case.method
        case "zero-shot":
            return ZERO_SHOT
        case way:
            return f"{way}:{case.method}"


def make_rows(evidence: Evidence, cases: Sequence[Case], pooled_method: str) -> list[Row]:
    """Return a row for each case, and those of the plain baselines, which are rows of one method again."""
    rows = []
    plain = {(LOCAL_ONLY, LOCAL_METHOD): LOCAL_ONLY, (POOLED, pooled_method): POOLED}
    for case in cases:
        row = _row(evidence, case)
        rows.append(row)
        if alias := plain.get((case.way, case.method)):
            rows.append(msgspec.structs.replace(row, method=alias))
    return rows


def make_points(evidence: Evidence, cases: Sequence[Case], place: Place) -> list[Point]:
    """Return the means of all methods at hospitals, or at the global test, in the order of the cases."""
    return [
        _point(evidence, name, labels, of_point)
        for (name, labels), of_point in _grouped(_at(cases, place)).items()
    ]


def make_findings(evidence: Evidence, cases: Sequence[Case], place: Place) -> list[Finding]:
    """Compare each federated method with the best that a hospital has without it, where there is anything.

    The same test images under the same seeds are paired. Holm's correction is over the numbers of labelled
    images. The other is chosen on the test images themselves, which favours it.
    """
    groups = _grouped(_at(cases, place))
    federated = dict.fromkeys(case.method for case in cases if case.way == FEDERATED)
    findings: list[Finding] = []
    for method in federated:
        others: dict[Labels, str] = {}
        plain: dict[str, Comparison] = {}
        balanced: dict[str, Comparison] = {}
        for labels in dict.fromkeys(labels for name, labels in groups if name == method):
            rivals = [key for key, found in groups.items() if key[1] == labels and _without_others(found[0])]
            if not rivals:
                continue
            other = max(rivals, key=lambda rival: _mean_right(evidence, groups[rival]))
            others[labels] = other[0]
            pair = _Pair(evidence, groups[method, labels], groups[other])
            plain[str(labels)], balanced[str(labels)] = pair.plain(), pair.balanced()
        plain, balanced = holm(plain), holm(balanced)
        findings += [
            Finding(method, labels, other, plain[str(labels)], balanced[str(labels)])
            for labels, other in others.items()
        ]
    return findings


def make_missing(rows: Iterable[Row]) -> list[Missing]:
    """Return the means over hospitals and seeds of rows with a missing class, where it is tested."""
    groups: dict[tuple[str, Labels, str], list[Row]] = {}
    for row in rows:
        if row.missing_class is not None and row.recall is not None:
            groups.setdefault((row.method, row.labels_per_class, row.missing_class), []).append(row)
    return [
        Missing(
            *key,
            *_mean_and_std([row.recall for row in group if row.recall is not None]),
            round(fmean(row.accuracy for row in group), 6),
            len(group),
        )
        for key, group in groups.items()
    ]


def _row(evidence: Evidence, case: Case) -> Row:
    run, names = evidence.runs[case], evidence.experiment.features.class_names
    labels, right = evidence.experiment.test(case).labels, evidence.right(case)
    recalls = {int(label): float(right[labels == label].mean()) for label in np.unique(labels)}
    recall = None if case.missing is None else recalls.get(case.missing)
    return Row(
        name_of(case),
        case.site,
        case.labels,
        case.seed,
        round(float(right.mean()), 6),
        round(fmean(recalls.values()), 6),
        dict(zip(names, run.images, strict=True)),
        run.classifier,
        run.sends,
        None if case.missing is None else names[case.missing],
        None if recall is None else round(recall, 6),
    )


def _point(evidence: Evidence, name: str, labels: Labels, cases: Sequence[Case]) -> Point:
    rows = [_row(evidence, case) for case in cases]
    low, high = _interval(evidence, name, labels, cases)
    return Point(
        name,
        labels,
        *_mean_and_std([row.accuracy for row in rows]),
        round(low, 6),
        round(high, 6),
        *_mean_and_std([row.balanced_accuracy for row in rows]),
        len(rows),
    )


def _interval(evidence: Evidence, name: str, labels: Labels, cases: Sequence[Case]) -> tuple[float, float]:
    """Return the bootstrap interval of the mean over newcomers and seeds, each counting alike."""
    groups = np.concatenate([evidence.experiment.groups(case) for case in cases])
    right = [evidence.right(case) for case in cases]
    weights = np.concatenate([np.full(len(of_case), 1 / len(of_case)) for of_case in right])
    _, members = np.unique(groups, return_inverse=True)
    gains = np.bincount(members, weights=weights * np.concatenate(right)).astype(np.float64)
    counts = np.bincount(members, weights=weights).astype(np.float64)
    return paired_bootstrap(
        gains[:, None], counts[:, None], derive_seed(0, purpose=f"bootstrap newcomer {name} {labels}")
    )


@dataclass(frozen=True)
class _Pair:
    """Two methods on the same test images, newcomer by newcomer and seed by seed."""

    evidence: Evidence
    cases: Sequence[Case]
    others: Sequence[Case]

    def plain(self) -> Comparison:
        """Compare accuracy."""
        return compare(self._right(self.cases), self._right(self.others), self._groups, self._seed)

    def balanced(self) -> Comparison:
        """Compare balanced accuracy over all newcomers together."""
        labels = np.concatenate([self.evidence.experiment.test(case).labels for case in self.cases])
        right, other = self._right(self.cases), self._right(self.others)
        return compare_balanced(right, other, self._groups, labels, self._seed)

    def _right(self, cases: Sequence[Case]) -> npt.NDArray[np.bool_]:
        return np.concatenate([self.evidence.right(case) for case in cases])

    @property
    def _groups(self) -> npt.NDArray[np.int64]:
        return np.concatenate([self.evidence.experiment.groups(case) for case in self.cases])

    @property
    def _seed(self) -> int:
        first = self.cases[0]
        return derive_seed(0, purpose=f"bootstrap newcomer {first.method} {first.labels} {first.site}")


def _without_others(case: Case) -> bool:
    return case.way in (LOCAL_ONLY, ZERO_SHOT)


def _mean_right(evidence: Evidence, cases: Sequence[Case]) -> float:
    return fmean(float(evidence.right(case).mean()) for case in cases)


def _at(cases: Sequence[Case], place: Place) -> list[Case]:
    return [
        case for case in cases if case.missing is None and (case.site == GLOBAL_TEST) == (place == ELSEWHERE)
    ]


def _grouped(cases: Sequence[Case]) -> dict[tuple[str, Labels], list[Case]]:
    """Return the cases by method and number of labels; in each, sites and seeds come in the same order."""
    groups: dict[tuple[str, Labels], list[Case]] = {}
    for case in sorted(cases, key=lambda case: (case.seed, case.site)):
        groups.setdefault((name_of(case), case.labels), []).append(case)
    order = dict.fromkeys((name_of(case), case.labels) for case in cases)
    return {key: groups[key] for key in order}


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    return round(fmean(values), 6), round(stdev(values), 6) if len(values) > 1 else 0.0
