"""What images were like in training: the measure of each kind of drift, from what the heads carry.

Each kind makes numbers of an image that in training have mean 0 and in every direction a standard deviation
of at most 1, so that a difference is told in standard deviations:

- embeddings: the coordinates along the directions in which training embeddings vary most, each over its
  standard deviation (the Mahalanobis distance within them)
- classes: for each class, whether it was predicted, less its share, over the root of its share (the length of
  a mean of these is Cohen's w, the root of chi-square per image)
- sets: the size of the prediction set, over its standard deviation if every other class came in by itself
- unlike: whether the image was unlike the training images, over the standard deviation of that
"""

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.serving.drift.running_mean import Vector

Kind = Literal["embeddings", "classes", "sets", "unlike"]
KINDS: tuple[Kind, ...] = ("embeddings", "classes", "sets", "unlike")

LEAST_EFFECT = 0.2
"""Standard deviations: smaller differences are no drift, however sure. Cohen's "small"."""

IMAGES_FOR_A_DIRECTION = 20
"""So many training images for each direction that is looked along: with fewer, its mean is too uncertain."""

_FARTHEST = 4.0
# Of what training itself did not know exactly: the upper end of a normal 95 % interval, one-sided.
_UNCERTAINTY = 1.645
_LEAST_VARIANCE_OF_SETS = 0.05


class Answered(Protocol):
    """What is looked at of an answer, of the worker's or `predict`'s."""

    @property
    def label(self) -> str | None:
        """The class, None where there is none."""

    @property
    def outcome(self) -> str:
        """Return whether it was answered, or is unlike the training images."""

    @property
    def prediction_set(self) -> Collection[str] | None:
        """The classes that cannot be ruled out, None where nothing says."""


@dataclass(frozen=True)
class DriftReference:
    """The training data by figures. Embeddings are of unit length.

    `mean` (D,) of `images` embeddings; `vectors` (D, k), the square roots of the covariance's largest parts;
    `class_shares` (C,) of the classes `class_names` as they were predicted for `calibration_images` images,
    with sets of `set_size` classes on average, of which a share `unlike` was unlike. Where heads have no sets
    or no threshold, those are None. `per_group`: images for each independent group, such as a patient's.
    """

    class_names: tuple[str, ...]
    mean: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]
    images: int
    class_shares: npt.NDArray[np.float32]
    calibration_images: int
    set_size: float | None = None
    unlike: float | None = None
    per_group: float = 1.0

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of all figures in hexadecimal: equal ones are one reference."""
        numbers = (self.images, self.calibration_images, self.set_size, self.unlike, self.per_group)
        digest = hashlib.sha256(repr((self.class_names, *numbers)).encode())
        for array in (self.mean, self.vectors, self.class_shares):
            digest.update(np.ascontiguousarray(array, np.float32).tobytes())
        return digest.hexdigest()

    def has(self, kind: Kind) -> bool:
        """Whether there is anything to compare a kind with."""
        return {"sets": self.set_size, "unlike": self.unlike}.get(kind, 0.0) is not None

    def least(self, kind: Kind) -> float:
        """Return the least difference that counts: `LEAST_EFFECT`, and what training did not know exactly."""
        images = self.images if kind == "embeddings" else self.calibration_images
        groups = max(1.0, images / self.per_group)
        directions = {
            "embeddings": self._scaled.shape[1],
            "classes": max(1, len(self.class_names) - 1),
        }.get(kind, 1)
        return LEAST_EFFECT + (math.sqrt(directions - 1) + _UNCERTAINTY) / math.sqrt(groups)

    def coordinates(self, kind: Kind, figures: Vector) -> Vector:
        """Return how far figures, or a mean of them, are from training, in standard deviations: see above."""
        if kind == "embeddings":
            found: Vector = (figures - self.mean) @ self._scaled
            return found
        if kind == "classes":
            shares = self._shares
            scaled: Vector = (figures - shares) / np.sqrt(shares)
            return scaled
        expected = self.set_size if kind == "sets" else self.unlike
        assert expected is not None, "who asks has looked"
        return (figures - expected) / self._deviation(kind, expected)

    def along(self, kind: Kind, direction: Vector, figures: Vector) -> float:
        """Return the coordinate of an image's figures along a unit direction; one odd image counts little."""
        found = float(self.coordinates(kind, figures) @ direction)
        return max(-_FARTHEST, min(_FARTHEST, found)) if kind == "embeddings" else found

    def direction(self, kind: Kind, mean: Vector | None) -> Vector | None:
        """Return the unit direction in which a mean of figures differs; None where there is none yet.

        Fewer images that are unlike are no trouble, so there it is always upwards.
        """
        if kind == "unlike":
            return np.ones(1)
        if mean is None:
            return None
        found = self.coordinates(kind, mean)
        length = float(np.linalg.norm(found))
        return None if length == 0 else found / length

    def _deviation(self, kind: Kind, expected: float) -> float:
        if kind == "unlike":
            share = (expected * self.calibration_images + 0.5) / (self.calibration_images + 1)
            return math.sqrt(share * (1 - share))
        others = max(1, len(self.class_names) - 1)
        share = min(1.0, max(0.0, expected - 1) / others)
        return math.sqrt(max(_LEAST_VARIANCE_OF_SETS, others * share * (1 - share)))

    @cached_property
    def _shares(self) -> Vector:
        # A class that was never predicted there may be here: half an image of each is added (Jeffreys).
        counts = self.class_shares.astype(np.float64) * self.calibration_images + 0.5
        shares: Vector = counts / counts.sum()
        return shares

    @cached_property
    def _scaled(self) -> Vector:
        """(D, directions): a product with these are coordinates in standard deviations."""
        vectors = self.vectors.astype(np.float64)
        variances = (vectors**2).sum(axis=0)
        most = max(1, int(self.images / self.per_group) // IMAGES_FOR_A_DIRECTION)
        chosen = np.argsort(-variances, kind="stable")[:most]
        chosen = chosen[variances[chosen] > 0]
        scaled: Vector = vectors[:, chosen] / variances[chosen]
        return scaled


def reference_of(heads: Heads | None, class_names: Sequence[str]) -> DriftReference | None:
    """Return what heads carry to compare with; None where they carry nothing."""
    if heads is None or heads.assurance is None:
        return None
    metadata, arrays = heads.assurance.metadata, heads.assurance.arrays
    return DriftReference(
        class_names=tuple(class_names),
        mean=arrays["mean"],
        vectors=arrays["vectors"],
        images=metadata.reference.images,
        class_shares=arrays["class_shares"],
        calibration_images=metadata.images,
        set_size=metadata.reference.mean_set_size,
        unlike=None if metadata.novelty is None else metadata.novelty.false_alarms,
        per_group=metadata.images / metadata.groups,
    )
