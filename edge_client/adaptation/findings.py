"""What adapting to images changed, and how sure it is; `--json` prints it as it is."""

import msgspec


class ClassShares(msgspec.Struct, frozen=True):
    """What share of the images each head calls by this class, 0 to 1, and how many have its label."""

    name: str
    zero_shot: float
    federation: float
    adapted: float
    labelled: int


class Change(msgspec.Struct, frozen=True):
    """How many images another head answers otherwise, and its agreement with the answers (Cohen's kappa)."""

    images: int
    agreement: float


class Labelled(msgspec.Struct, frozen=True):
    """How many of the labelled images each head calls by their label that has not seen these labels."""

    images: int
    zero_shot: int
    federation: int
    adapted_without_labels: int


class AdaptationFindings(msgspec.Struct, frozen=True, kw_only=True):
    """Which head answers at a place, and why; what it changes there.

    `images` are different ones; `copies` more are the same as one of them, `skipped` has the others with the
    reason. `separation` is how far the classes lie apart here, in units of how far they do in the federation;
    `offset` how far the scanner moves embeddings, whose length is 1. Confidences are mean probabilities of
    the answers. `to_label` images were written into `labels_list`, the heads to `written`, signed by the key
    `signed_by`.
    """

    federation: str
    site: str
    version: int
    method: str
    images: int
    copies: int
    skipped: dict[str, str]
    answers: str
    reason: str
    classes: list[ClassShares]
    changed_from_zero_shot: Change
    changed_from_federation: Change
    separation: float
    offset: float
    confidence: float
    zero_shot_confidence: float
    labelled: Labelled | None = None
    written: str | None = None
    signed_by: str | None = None
    labels_list: str | None = None
    to_label: int = 0
    remarks: list[str] = []
