"""What may be said of a federated method beside what a hospital has without it: paired tests by group."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.significance import Comparison, compare, compare_balanced, holm
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.newcomer.labels import Labels
from fedmedclip.simulation.newcomer.results import Evidence, Place, at_place, grouped
from fedmedclip.simulation.newcomer.study import FEDERATED, LOCAL_ONLY, WITHOUT_TRAINING, Case

Key = TypeVar("Key")
Value = TypeVar("Value", bound=np.generic)


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


class MissingFinding(msgspec.Struct, frozen=True):
    """A federated method against another on images of classes that the newcomer has never seen.

    `comparison` is of their accuracy, over all such classes, hospitals and seeds; `p_corrected` holds over
    all findings of the kind.
    """

    method: str
    other: str
    comparison: Comparison


def make_findings(evidence: Evidence, cases: Sequence[Case], place: Place) -> list[Finding]:
    """Compare each federated method with the best that a hospital has without it, where there is anything.

    The same test images under the same seeds are paired. Holm's correction is over the numbers of labelled
    images. The other is chosen on the test images themselves, which favours it.
    """
    groups = grouped(at_place(cases, place))
    findings: list[Finding] = []
    for method in _federated(cases):
        others: dict[Labels, str] = {}
        plain: dict[Labels, Comparison] = {}
        balanced: dict[Labels, Comparison] = {}
        for labels in (labels for name, labels in groups if name == method):
            rivals = [key for key, found in groups.items() if key[1] == labels and _without_others(found[0])]
            if rivals:
                other = max(rivals, key=lambda rival: _mean_right(evidence, groups[rival]))
                pair = _Pair(evidence, groups[method, labels], groups[other])
                others[labels], plain[labels], balanced[labels] = other[0], pair.plain(), pair.balanced()
        plain, balanced = _corrected(plain), _corrected(balanced)
        findings += [
            Finding(method, labels, other, plain[labels], balanced[labels])
            for labels, other in others.items()
        ]
    return findings


def make_missing_findings(evidence: Evidence, cases: Sequence[Case]) -> list[MissingFinding]:
    """Compare each federated method with its heads trained alone, and with zero-shot, on unseen classes."""
    without = [case for case in cases if case.missing is not None]
    found: dict[tuple[str, str], Comparison] = {}
    for method in _federated(without):
        of_method = [case for case in without if (case.way, case.method) == (FEDERATED, method)]
        alone = [case._replace(way=LOCAL_ONLY) for case in of_method]
        untrained = [case._replace(way=WITHOUT_TRAINING, method="") for case in of_method]
        for other, others in ((f"{LOCAL_ONLY}:{method}", alone), (ZERO_SHOT, untrained)):
            found[method, other] = _Pair(evidence, of_method, others).plain()
    return [MissingFinding(*key, comparison) for key, comparison in _corrected(found).items()]


@dataclass(frozen=True)
class _Pair:
    """Two methods on the same test images, newcomer by newcomer and seed by seed.

    Where a newcomer has never seen a class, they are that class's images only.
    """

    evidence: Evidence
    cases: Sequence[Case]
    others: Sequence[Case]

    def plain(self) -> Comparison:
        """Compare accuracy."""
        return compare(*self._right, self._joined(self.evidence.study.groups), self._seed)

    def balanced(self) -> Comparison:
        """Compare balanced accuracy over all newcomers together."""
        study = self.evidence.study
        groups, labels = self._joined(study.groups), self._joined(lambda case: study.test(case).labels)
        return compare_balanced(*self._right, groups, labels, self._seed)

    @property
    def _right(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        right = self.evidence.right
        others = dict(zip(self.cases, self.others, strict=True))
        return self._joined(right), self._joined(lambda case: right(others[case]))

    def _joined(self, of_case: Callable[[Case], npt.NDArray[Value]]) -> npt.NDArray[Value]:
        return np.concatenate([of_case(case)[self._counts(case)] for case in self.cases])

    def _counts(self, case: Case) -> npt.NDArray[np.bool_]:
        labels = self.evidence.study.test(case).labels
        return np.ones(len(labels), np.bool_) if case.missing is None else labels == case.missing

    @property
    def _seed(self) -> int:
        first = self.cases[0]
        return derive_seed(0, purpose=f"bootstrap newcomer {first.method} {first.labels} {first.site}")


def _corrected(found: Mapping[Key, Comparison]) -> dict[Key, Comparison]:
    by_place = holm({str(place): comparison for place, comparison in enumerate(found.values())})
    return dict(zip(found, by_place.values(), strict=True))


def _federated(cases: Iterable[Case]) -> list[str]:
    return list(dict.fromkeys(case.method for case in cases if case.way == FEDERATED))


def _without_others(case: Case) -> bool:
    return case.way in (LOCAL_ONLY, WITHOUT_TRAINING)


def _mean_right(evidence: Evidence, cases: Sequence[Case]) -> float:
    return fmean(float(evidence.right(case).mean()) for case in cases)
