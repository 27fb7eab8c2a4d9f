"""Methods with a part switched off: each part of the reference, and adaptation wherever there is any."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT

_HEADS_VOTE = frozenset({"fedmedclip", "whitened-memory"})


@dataclass(frozen=True)
class Ablation:
    """A part, how to switch it off, and which classifier then answers at the sites."""

    part: str
    how: str
    without: Callable[[Case], Case]
    applies: Callable[[Case], bool]
    classifier: str = "ensemble"


def ablations_of(cases: Sequence[Case], reference: Case) -> list[tuple[Ablation, Case, Case]]:
    """Return each ablation with the case that lacks the part, and the case that has it."""
    wanted = [(ablation, reference) for ablation in _OF_THE_REFERENCE]
    wanted += [(_ADAPTATION, case) for case in cases]
    return [
        (
            ablation,
            msgspec.structs.replace(ablation.without(case), label=f"{case.label} less {ablation.part}"),
            case,
        )
        for ablation, case in wanted
        if ablation.applies(case)
    ]


def _has_mask(case: Case) -> bool:
    if case.method == ZERO_SHOT:
        return False
    tensors = shared_head_specification(case.method, embedding_size=2, classes=2).tensors
    return any(tensor.name.endswith(".threshold") for tensor in tensors)


def _has_private_head(case: Case) -> bool:
    return case.method in _HEADS_VOTE


def _teaches(case: Case) -> bool:
    return case.method == "fedmedclip" and case.settings.distillation_weight > 0


def _with_settings(**changes: float | bool | str) -> Callable[[Case], Case]:
    known = set(TrainingSettings.__struct_fields__)
    assert set(changes) <= known

    def change(case: Case) -> Case:
        return msgspec.structs.replace(case, settings=msgspec.structs.replace(case.settings, **changes))

    return change


def _with(**changes: object) -> Callable[[Case], Case]:
    return lambda case: msgspec.structs.replace(case, **changes)


_ADAPTATION = Ablation(
    "domain adaptation", "no reference set", _with(target=None), lambda case: case.target is not None
)
_OF_THE_REFERENCE = (
    Ablation("mask", "thresholds at -10: every row is kept, none is learned", _with(masked=False), _has_mask),
    Ablation(
        "MLP",
        "no classification and no distillation loss; the shared head answers",
        _with_settings(classification_weight=0.0, distillation_weight=0.0),
        lambda case: case.method == "fedmedclip",
        classifier="shared",
    ),
    Ablation("distillation", "distillation weight 0", _with_settings(distillation_weight=0.0), _teaches),
    Ablation(
        "adaptive distillation",
        "both directions of distillation weigh the same",
        _with_settings(adaptive_distillation=False),
        _teaches,
    ),
    Ablation(
        "adaptive ensemble weight",
        "the mean of both heads' probabilities",
        _with(ensemble=EnsembleRule("calibrated", 0.5)),
        _has_private_head,
    ),
    Ablation(
        "private head in the ensemble", "the shared head answers alone", _with(), _has_private_head, "shared"
    ),
    Ablation(
        "shared head in the ensemble", "the private head answers alone", _with(), _has_private_head, "private"
    ),
    Ablation(
        "compression",
        "lossless deltas both ways",
        _with(uplink_codec="lossless", downlink_codec="lossless"),
        lambda case: (
            case.federated
            and case.method != ZERO_SHOT
            and (case.uplink_codec, case.downlink_codec) != ("lossless", "lossless")
        ),
    ),
)
