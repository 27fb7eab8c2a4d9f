"""What the service says about a file, the same by every door."""

from typing import Literal

import msgspec

from fedmedclip.edge_client.inference.provenance import Provenance

NOTICE = "Research use only; not for diagnosis."

Outcome = Literal["answered", "unlike the training images", "unreadable"]


class Neighbour(msgspec.Struct, frozen=True):
    """A training image of the site that owns it: its label, and its cosine distance from the image."""

    label: str
    distance: float


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which regions carry the answer: `regions` (h, w), row by row from the top left, from 0 to 1.

    `kind` says how they were found, `largest_loss` how much of the answer's log-probability (nats) the region
    that carries most of it is worth: near 0, the map says little. `nearest` are the site's nearest training
    images, where it has them.
    """

    kind: str
    regions: list[list[float]]
    largest_loss: float
    nearest: list[Neighbour] = []


class Result(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One image's answer. A file gives one, or with `frames = "all"` one for each frame, counted from 1.

    `label` is None unless it is answered, `probabilities` by class name sum to 1. `prediction_set` holds the
    true class as often as `Answer.level` says; `distance` is that to the training images, of which 1 is the
    farthest that is answered. Both are None where the heads carry no calibration. `reason` says why an image
    could not be read.
    """

    outcome: Outcome
    frame: int | None = None
    label: str | None = None
    probabilities: dict[str, float] | None = None
    prediction_set: list[str] | None = None
    distance: float | None = None
    ensemble_weight: float | None = None
    milliseconds: float | None = None
    reason: str | None = None
    explanation: Explanation | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to one file. `id` are 32 hexadecimal digits; times are seconds since 1970."""

    id: str
    door: str
    name: str
    received_at: float
    answered_at: float
    results: list[Result]
    provenance: Provenance
    level: float | None = None
    notice: str = ""
