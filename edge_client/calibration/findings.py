"""What calibrating gave; `--json` prints it as it is."""

import msgspec

from fedmedclip.protocol.heads.assurance import Novelty


class ClassThreshold(msgspec.Struct, frozen=True):
    """A class, its number of images, and the worst score with which it is in a set; None: it is in each."""

    name: str
    images: int
    threshold: float | None


class CalibrationFindings(msgspec.Struct, frozen=True, kw_only=True):
    """Prediction sets of a `level` by scores of a `kind`, of `images` in `groups`; whose heads they are of.

    `skipped` has the images that could not be used, with the reason. `mean_set_size` is in classes, on these
    images. `novelty` says when an image is unlike what was seen, None where the images are too few to say.
    Heads are in `written`, signed by the key `signed_by`.
    """

    federation: str
    site: str
    version: int
    method: str
    level: float
    kind: str
    class_conditional: bool
    images: int
    groups: int
    skipped: dict[str, str]
    classes: list[ClassThreshold]
    mean_set_size: float
    novelty: Novelty | None
    written: str
    signed_by: str | None
    remarks: list[str]
