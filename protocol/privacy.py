"""What `[privacy]` asks for, at the coordinating centre and at a site, and what meets both demands."""

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import PrivacyTerms


class PrivacySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the table `[privacy]` holds on both sides; without `epsilon` it asks for no differential privacy.

    `epsilon` and `delta` bound what all of a site's updates of a run tell of one `unit`: an image, or all
    images of one patient, of whom at most `images_per_patient` count. Statistics of classes leave out those
    with a noisy count below `minimum_group_size`. Gradients of an image or patient are clipped to the norm
    `clip_norm`, and a step takes each in with probability `sampling_rate`. The budget lasts for `releases`
    updates, by default one of statistics, or as many as there are rounds. Raises InvalidInputError for an
    epsilon or a clip norm that is infinite.
    """

    epsilon: Annotated[float, Meta(gt=0)] | None = None
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    unit: Literal["image", "patient"] = "image"
    images_per_patient: Annotated[int, Meta(ge=1, le=1_000_000)] = 16
    minimum_group_size: Annotated[int, Meta(ge=0, le=1_000_000)] = 8
    clip_norm: Annotated[float, Meta(gt=0)] = 1.0
    sampling_rate: Annotated[float, Meta(gt=0, le=1)] = 0.25
    releases: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        for name in ("epsilon", "clip_norm"):
            if (value := getattr(self, name)) is not None and not math.isfinite(value):
                raise InvalidInputError(f"{name} is {value}; give a finite number, such as 1")

    def terms(self, usual_releases: int) -> PrivacyTerms | None:
        """Return what is asked for, for the Plan of a run; None where nothing is."""
        if self.epsilon is None:
            return None
        return PrivacyTerms(
            self.epsilon,
            self.delta,
            self.unit,
            self.images_per_patient,
            self.minimum_group_size,
            self.clip_norm,
            self.sampling_rate,
            usual_releases if self.releases is None else self.releases,
        )


NO_DEMAND = PrivacySettings()
"""Of a site whose operator asks for nothing beside the plan."""


def read_privacy(label: str, text: str) -> PrivacySettings:
    """Return the settings in a text such as `epsilon=8,delta=1e-5,unit=patient`.

    Raises InvalidInputError, which begins with `label`, for anything else, and where epsilon is missing.
    """
    given = [part.partition("=") for part in text.split(",")]
    values = {name.strip(): value.strip() for name, _, value in given}
    try:
        found = msgspec.convert(values, PrivacySettings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"{label} {text!r}: {error}; write epsilon=8,delta=1e-5") from error
    if found.epsilon is None:
        raise InvalidInputError(f"{label} {text!r} says no epsilon; write epsilon=8,delta=1e-5")
    return found


def stricter(plan: PrivacyTerms | None, own: PrivacyTerms | None) -> PrivacyTerms | None:
    """Return what meets both demands; how gradients are clipped and sampled is the plan's if it has terms."""
    if plan is None or own is None:
        return plan or own
    return msgspec.structs.replace(
        plan,
        epsilon=min(plan.epsilon, own.epsilon),
        delta=min(plan.delta, own.delta),
        unit="patient" if "patient" in (plan.unit, own.unit) else "image",
        images_per_patient=min(plan.images_per_patient, own.images_per_patient),
        minimum_group_size=max(plan.minimum_group_size, own.minimum_group_size),
    )
