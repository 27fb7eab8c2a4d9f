"""Everything that the report says, as data: `accuracy.json` is this."""

from collections.abc import Sequence
from statistics import fmean

import msgspec

from fedmedclip.simulation.accuracy.ablations import Ablation
from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.accuracy.comparisons import Comparisons, beside_alone, comparisons
from fedmedclip.simulation.accuracy.evidence import SITES, Evidence, test_parts
from fedmedclip.simulation.accuracy.origin import Origin, origin
from fedmedclip.simulation.accuracy.results import (
    GroupCounts,
    MethodResult,
    ScoreTable,
    Spread,
    group_counts,
    left_out_scores,
    method_result,
    spread,
)
from fedmedclip.simulation.accuracy.runs import Run
from fedmedclip.simulation.accuracy.setting import Setting, tested_in_all
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.known_data import chosen_on, name_of_data


class LeftOut(msgspec.Struct, frozen=True):
    """What is made of all images of a hospital by heads that never saw it."""

    label: str
    site: str
    images: int
    scores: ScoreTable


class AblationResult(msgspec.Struct, frozen=True):
    """A method without a part: mean accuracy over the sites, and on the global test.

    `change` and `global_change` are the differences to the whole method with the same seed.
    """

    label: str
    part: str
    how: str
    classifier: str
    accuracy: Spread
    change: Spread
    global_shared: Spread | None
    global_change: Spread | None
    bytes_per_round: float


class Content(msgspec.Struct, frozen=True):
    """The whole report.

    `comparisons` are of accuracy, `balanced_comparisons` of balanced accuracy, by test set (`sites`,
    `global_test`) and method. `beside_alone` are those of a federated method with itself at each site alone.
    `data_digest` names the features; `data_set` is the data's name where it is known, and methods in
    `chosen_here` have constants, or settings, that were chosen on it.
    """

    origin: Origin
    command: str
    class_names: tuple[str, ...]
    site_names: tuple[str, ...]
    seeds: tuple[int, ...]
    rounds: int
    codec: str
    reference: str
    methods: list[MethodResult]
    comparisons: dict[str, Comparisons]
    balanced_comparisons: dict[str, Comparisons]
    beside_alone: Comparisons
    balanced_beside_alone: Comparisons
    data_digest: str
    data_set: str
    chosen_here: tuple[str, ...]
    groups: GroupCounts
    leave_one_out: list[LeftOut]
    ablations: list[AblationResult]
    notes: tuple[str, ...]
    setting: Setting


def gather(
    evidence: Evidence,
    command: str,
    setting: Setting,
    notes: Sequence[str],
    cases: Sequence[Case],
    reference: Case,
    left_out: Sequence[Case],
    ablations: Sequence[tuple[Ablation, Case, Case]],
) -> Content:
    """Compute every figure from the finished runs."""
    test_sets = [SITES, *([GLOBAL_TEST] if evidence.pool.global_test is not None else [])]
    compared = {name: comparisons(evidence, cases, reference, name) for name in test_sets}
    data_set = name_of_data(evidence.pool, evidence.class_names)
    return Content(
        origin(),
        command,
        evidence.class_names,
        tuple(tested_in_all(evidence.sites, setting)),
        evidence.seeds,
        reference.rounds,
        _codecs(cases, reference),
        reference.label,
        [method_result(evidence, case) for case in cases],
        {name: plain for name, (plain, _) in compared.items()},
        {name: balanced for name, (_, balanced) in compared.items()},
        *beside_alone(evidence, cases),
        evidence.pool.digest.hex(),
        data_set,
        tuple(case.label for case in cases if data_set in chosen_on(case.method)),
        group_counts(evidence),
        [_left_out(evidence, case) for case in left_out],
        [_ablation(evidence, *ablation) for ablation in ablations],
        (*evidence.pool.notes, *notes),
        setting,
    )


def _codecs(cases: Sequence[Case], reference: Case) -> str:
    """Return the reference's codec, and of which federated rows it is another."""

    def of(case: Case) -> str:
        up, down = case.uplink_codec, case.downlink_codec
        return up if up == down else f"{up}/{down}"

    others = [f"{case.label}: {of(case)}" for case in cases if case.federated and of(case) != of(reference)]
    return f"{of(reference)} ({', '.join(others)})" if others else of(reference)


def _left_out(evidence: Evidence, case: Case) -> LeftOut:
    assert case.left_out is not None
    _, labels = evidence.images(case.left_out, evidence.seeds[0], case.left_out)
    return LeftOut(case.label, case.left_out, len(labels), left_out_scores(evidence, case))


def _ablation(evidence: Evidence, ablation: Ablation, case: Case, reference: Case) -> AblationResult:
    without, whole = evidence.of(case), evidence.of(reference)
    accuracies = [_site_accuracy(evidence, run, ablation.classifier) for run in without]
    before = [_site_accuracy(evidence, run, "ensemble") for run in whole]
    global_shared = global_change = None
    # Another way to combine the heads leaves the shared head as it is.
    if GLOBAL_TEST in whole[0].parts and case.identity != reference.identity:
        on_global = [_accuracy(evidence, run, GLOBAL_TEST, "shared") for run in without]
        global_before = [_accuracy(evidence, run, GLOBAL_TEST, "shared") for run in whole]
        global_shared, global_change = spread(on_global), _change(on_global, global_before)
    sent = fmean(
        sum(figures.uplink_bytes + figures.downlink_bytes for figures in run.rounds) / run.turns
        for run in without
    )
    return AblationResult(
        reference.label,
        ablation.part,
        ablation.how,
        ablation.classifier,
        spread(accuracies),
        _change(accuracies, before),
        global_shared,
        global_change,
        round(sent, 1),
    )


def _change(after: Sequence[float], before: Sequence[float]) -> Spread:
    return spread([new - old for new, old in zip(after, before, strict=True)])


def _site_accuracy(evidence: Evidence, run: Run, classifier: str) -> float:
    return fmean(_accuracy(evidence, run, part, classifier) for part in test_parts(run, SITES))


def _accuracy(evidence: Evidence, run: Run, part: str, classifier: str) -> float:
    probabilities = evidence.probabilities(run, part, classifier)
    assert probabilities is not None
    _, labels = evidence.images(part, run.seed)
    return float((probabilities.argmax(axis=1) == labels).mean())
