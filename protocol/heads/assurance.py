"""What a heads file says of how far its answers are to be relied on, made of one site's own images.

Beside the metadata here there are float32 arrays, `assurance.NAME`: `mean` (D,), the mean embedding of the
reference images, at unit length; `vectors` (D, k), the leading directions of their covariance, as long as the
square roots of its eigenvalues; `class_shares` (C,), how often each class is the answer on images that were
not trained on; and with `novelty` `means` (M, D) and `root` (D, j).
"""

from typing import Annotated, Literal

import msgspec

from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification

LARGEST_ROOT = 64
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
_Positive = Annotated[float, msgspec.Meta(ge=1e-12, le=1e12)]
_Directions = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_ROOT)]


class Novelty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From which distance on an image is unlike what was seen, and what that was.

    Distances are to the nearest of `means` class means: the squared length of a difference d is
    |d|^2 / elsewhere - |d @ root|^2. At most the share `false_alarms` of the site's own images lies beyond
    `threshold`. The means are `of` the federation, or of the site's own images.
    """

    threshold: _Positive
    false_alarms: Share
    of: Literal["federation", "site"]
    means: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    directions: _Directions
    elsewhere: _Positive


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What later images are compared with: how many `images` mean and vectors are of.

    `elsewhere` is the variance in each direction that no vector stands for, `mean_set_size` that of the
    prediction sets of the calibration images.
    """

    images: _Count
    directions: _Directions
    elsewhere: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    mean_set_size: Annotated[float, msgspec.Meta(ge=0, le=65536)]


class AssuranceMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prediction sets of a `level` by scores of a `kind`, from so many `images` of `groups`.

    `thresholds` has one for each class, None where the images were too few: then the class is in every set.
    """

    level: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    kind: Literal["lac", "aps"]
    class_conditional: bool
    images: _Count
    groups: _Count
    thresholds: Annotated[
        list[Annotated[float, msgspec.Meta(ge=0, le=2)] | None], msgspec.Meta(max_length=65536)
    ]
    reference: Reference
    novelty: Novelty | None = None


def assurance_specification(metadata: AssuranceMetadata, size: int, classes: int) -> HeadSpecification:
    """Return the arrays that belong to the metadata, for embeddings of size D and C classes."""
    arrays = [
        TensorSpecification("mean", (size,)),
        TensorSpecification("vectors", (size, metadata.reference.directions)),
        TensorSpecification("class_shares", (classes,)),
    ]
    if metadata.novelty is not None:
        arrays.append(TensorSpecification("means", (metadata.novelty.means, size)))
        arrays.append(TensorSpecification("root", (size, metadata.novelty.directions)))
    return HeadSpecification(tuple(arrays))
