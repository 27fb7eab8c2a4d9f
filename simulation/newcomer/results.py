"""From runs to rows, and to their means over hospitals and seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.learning.version_head import adapts_to_versions
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.significance import paired_bootstrap
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.newcomer.class_shares import NATURAL, kind_of
from fedmedclip.simulation.newcomer.labels import Labels
from fedmedclip.simulation.newcomer.runs import Run
from fedmedclip.simulation.newcomer.study import FEDERATED, LOCAL_ONLY, POOLED, WITHOUT_TRAINING, Case, Study

LOCAL_METHOD = "fedmedclip"
"""Whose heads the row `local-only` has, as in `bench accuracy`."""

SHARED_ALONE = ", shared head alone"
NOT_ADAPTED = ", not adapted"
"""Behind a method's name: what its shared head says alone, where it also has a private head."""
HOSPITALS: Final = "hospitals"
ELSEWHERE: Final = "global_test"
Place = Literal["hospitals", "global_test"]


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One newcomer: shares of right answers on its own test images (0 to 1), and the mean recall of classes.

    `images` counts its labelled training images by class, `unlabelled` those that the method adapts to beside
    them: at the global test the very images that are tested. `sends` says whether its updates counted in the
    shared head, `classifier` what answered; `shared_accuracy` is that of the shared head alone. Of a
    `missing_class` it had no labelled image; `recall` is that class's, and `shared_recall` the shared head's.
    """

    method: str
    site: str
    labels_per_class: Labels
    seed: int
    accuracy: float
    balanced_accuracy: float
    images: dict[str, int]
    classifier: str
    shared_accuracy: float
    sends: bool = False
    unlabelled: int = 0
    missing_class: str | None = None
    recall: float | None = None
    shared_recall: float | None = None


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


class OtherShares(msgspec.Struct, frozen=True):
    """A method that adapts without any label where classes have other shares: means over hospitals and seeds.

    `shares` are `natural`, `balanced` (each class alike) or `dirichlet` (drawn evenly from all shares,
    several times at each hospital). The unlabelled images have them, and the test images are weighted by
    them. `lowest` is the accuracy in the worst run, `below_zero_shot` how many of the `runs` are below
    zero-shot's.
    """

    method: str
    shares: str
    accuracy: float
    accuracy_std: float
    lowest: float
    below_zero_shot: int
    runs: int


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

    study: Study
    runs: Mapping[Case, Run]

    def right(self, case: Case, *, shared: bool = False) -> npt.NDArray[np.bool_]:
        """Return which test images (n,) are called rightly, by all heads or by the `shared` one alone."""
        run = self.runs[case]
        answers = np.array(run.shared_answers if shared else run.answers)
        right: npt.NDArray[np.bool_] = answers == self.study.test(case).labels
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
        if _was_adapted(evidence, case):
            rows.append(_row(evidence, case, shared=True))
        if alias := plain.get((case.way, case.method)):
            rows.append(msgspec.structs.replace(row, method=alias))
    return rows


def make_points(evidence: Evidence, cases: Sequence[Case], place: Place) -> list[Point]:
    """Return the means of all methods at hospitals, or at the global test, in the order of the cases."""
    points = []
    for (name, labels), of_point in grouped(at_place(cases, place)).items():
        points.append(_point(evidence, name, labels, of_point))
        if all(_was_adapted(evidence, case) for case in of_point):
            points.append(_point(evidence, name, labels, of_point, shared=True))
    # A method's rows are told together.
    names = dict.fromkeys(point.method for point in points)
    return [point for name in names for point in points if point.method == name]


def make_other_shares(evidence: Evidence, cases: Sequence[Case]) -> list[OtherShares]:
    """Return what becomes of methods that adapt without labels, and of zero-shot, by class shares."""
    resampled = [case for case in cases if case.shares != NATURAL]
    natural = dict.fromkeys(case._replace(shares=NATURAL) for case in resampled)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for case in [*natural, *resampled]:
        untrained = Case(WITHOUT_TRAINING, "", case.site, case.labels, case.seed)
        zero_shot = _weighted(evidence, case, untrained)
        for name, accuracy in (
            (case.method, _weighted(evidence, case, case)),
            (f"{case.method}{NOT_ADAPTED}", _weighted(evidence, case, case, shared=True)),
            (ZERO_SHOT, zero_shot),
        ):
            found.setdefault((name, kind_of(case.shares)), []).append((accuracy, zero_shot))
    return [
        OtherShares(
            *key,
            *_mean_and_std([accuracy for accuracy, _ in pairs]),
            round(min(accuracy for accuracy, _ in pairs), 6),
            sum(accuracy < zero_shot for accuracy, zero_shot in pairs),
            len(pairs),
        )
        for key, pairs in found.items()
    ]


def _weighted(evidence: Evidence, case: Case, answered: Case, *, shared: bool = False) -> float:
    """Return the accuracy of what answered, with the class shares of the case."""
    labels, right = evidence.study.test(case).labels, evidence.right(answered, shared=shared)
    shares = evidence.study.class_shares(case)
    return float(sum(shares[label] * right[labels == label].mean() for label in np.flatnonzero(shares)))


def _was_adapted(evidence: Evidence, case: Case) -> bool:
    """Whether there is also the federation's head as it came, to tell it from."""
    adapts = case.way == FEDERATED and adapts_to_versions(case.method)
    return adapts and evidence.runs[case].classifier == "ensemble"


def make_missing(rows: Iterable[Row]) -> list[Missing]:
    """Return the means over hospitals and seeds of rows with a missing class, where it is tested.

    The plain baseline is left out, which is another row again.
    """
    groups: dict[tuple[str, Labels, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row.missing_class is None or row.recall is None or row.method == LOCAL_ONLY:
            continue
        if row.method.endswith(NOT_ADAPTED):
            continue
        of_class = row.labels_per_class, row.missing_class
        groups.setdefault((row.method, *of_class), []).append((row.recall, row.accuracy))
        if row.classifier == "ensemble" and row.shared_recall is not None:
            adapts = ":" not in row.method and adapts_to_versions(row.method)
            name = f"{row.method}{NOT_ADAPTED if adapts else SHARED_ALONE}"
            groups.setdefault((name, *of_class), []).append((row.shared_recall, row.shared_accuracy))
    return [
        Missing(
            *key,
            *_mean_and_std([recall for recall, _ in found]),
            round(fmean(a for _, a in found), 6),
            len(found),
        )
        for key, found in groups.items()
    ]


def _row(evidence: Evidence, case: Case, *, shared: bool = False) -> Row:
    """Return the row of a case; `shared`: that of its shared head as it came."""
    run, names = evidence.runs[case], evidence.study.features.class_names
    labels, right = evidence.study.test(case).labels, evidence.right(case, shared=shared)
    recalls = {int(label): float(right[labels == label].mean()) for label in np.unique(labels)}
    right_of_shared = evidence.right(case, shared=True)
    recall = shared_recall = None
    if case.missing in recalls:
        recall = round(recalls[case.missing], 6)
        shared_recall = round(float(right_of_shared[labels == case.missing].mean()), 6)
    return Row(
        name_of(case) + NOT_ADAPTED * shared,
        case.site,
        case.labels,
        case.seed,
        round(float(right.mean()), 6),
        round(fmean(recalls.values()), 6),
        dict(zip(names, run.images, strict=True)),
        "shared" if shared else run.classifier,
        round(float(right_of_shared.mean()), 6),
        run.sends,
        0 if shared else run.unlabelled,
        None if case.missing is None else names[case.missing],
        recall,
        shared_recall,
    )


def _point(
    evidence: Evidence, name: str, labels: Labels, cases: Sequence[Case], *, shared: bool = False
) -> Point:
    name += NOT_ADAPTED * shared
    rows = [_row(evidence, case, shared=shared) for case in cases]
    low, high = _interval(evidence, name, labels, cases, shared=shared)
    return Point(
        name,
        labels,
        *_mean_and_std([row.accuracy for row in rows]),
        round(low, 6),
        round(high, 6),
        *_mean_and_std([row.balanced_accuracy for row in rows]),
        len(rows),
    )


def _interval(
    evidence: Evidence, name: str, labels: Labels, cases: Sequence[Case], *, shared: bool
) -> tuple[float, float]:
    """Return the bootstrap interval of the mean over newcomers and seeds, each counting alike."""
    groups = np.concatenate([evidence.study.groups(case) for case in cases])
    right = [evidence.right(case, shared=shared) for case in cases]
    weights = np.concatenate([np.full(len(of_case), 1 / len(of_case)) for of_case in right])
    _, members = np.unique(groups, return_inverse=True)
    gains = np.bincount(members, weights=weights * np.concatenate(right)).astype(np.float64)
    counts = np.bincount(members, weights=weights).astype(np.float64)
    return paired_bootstrap(
        gains[:, None], counts[:, None], derive_seed(0, purpose=f"bootstrap newcomer {name} {labels}")
    )


def at_place(cases: Sequence[Case], place: Place) -> list[Case]:
    """Return the cases at hospitals, or at the global test, whose newcomer may have seen every class."""
    return [case for case in cases if is_usual(case) and (case.site == GLOBAL_TEST) == (place == ELSEWHERE)]


def is_usual(case: Case) -> bool:
    """Whether the newcomer may have seen every class, with the shares that they have there."""
    return case.missing is None and case.shares == NATURAL


def grouped(cases: Sequence[Case]) -> dict[tuple[str, Labels], list[Case]]:
    """Return the cases by method and number of labels; in each, sites and seeds come in the same order."""
    groups: dict[tuple[str, Labels], list[Case]] = {}
    for case in sorted(cases, key=lambda case: (case.seed, case.site)):
        groups.setdefault((name_of(case), case.labels), []).append(case)
    order = dict.fromkeys((name_of(case), case.labels) for case in cases)
    return {key: groups[key] for key in order}


def _mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    return round(fmean(values), 6), round(stdev(values), 6) if len(values) > 1 else 0.0
