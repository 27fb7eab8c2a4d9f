"""Embeddings whitened by how they vary within a class, from statistics that a weighted mean pools exactly.

The scatter within classes (D x D) is dominated by a few directions in which anatomy and scanner vary whatever
the finding; whitening takes them down and brings out the many small ones that tell findings apart. No site
has images enough to estimate D x D numbers well alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.heads.head import NamedArrays

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

SHRINKAGES = (0.1, 0.3, 1.0, 3.0)
"""What may be added to the scatter's eigenvalues, in units of their mean."""
_SMALLEST_SHARE = 1e-3
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Whitening:
    """What the shared statistics say, in float64: z = (e - centre) @ transform has about unit mean length.

    `prototypes` (C, D) are the whitened class means, `present` (C,) whether any site has the class,
    `expected` the mean squared distance of an image to its own class mean.
    """

    centre: npt.NDArray[np.float64]
    transform: npt.NDArray[np.float64]
    prototypes: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]
    expected: float

    def apply(self, embeddings: Floats) -> Floats:
        """Whiten rows (N, D)."""
        whitened: Floats = (embeddings - self.centre.astype(np.float32)) @ self.transform.astype(np.float32)
        return whitened


@dataclass(frozen=True)
class Axes:
    """The scatter's axes, float64: whitening for any shrinkage without solving for them again.

    `values` (D,) are its eigenvalues in units of their mean, `vectors` (D, D) its eigenvectors as columns,
    `unit` their mean. `means` (C, D), `centre` (D,) and `present` (C,) are as of `Whitening`, not whitened.
    """

    values: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float64]
    unit: float
    means: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]

    def whitening(self, shrinkage: float) -> Whitening:
        """Return the whitening by scatter + shrinkage times its mean eigenvalue."""
        lengths = np.sqrt((self.values + shrinkage) * self.unit * len(self.values))
        transform = self.vectors / lengths
        prototypes = (self.means - self.centre) @ transform
        expected = max(float((self.values / (self.values + shrinkage)).mean()), 1e-3)
        return Whitening(self.centre, transform, prototypes, self.present, expected)


def statistics(embeddings: Floats, labels: Labels, classes: int) -> NamedArrays:
    """Return a site's shared arrays: sums and shares of each class and the scatter within, per image."""
    doubles, images = embeddings.astype(np.float64), len(labels)
    chosen = one_hot(labels, classes)
    counts = chosen.sum(axis=0)
    sums = chosen.T @ doubles
    offsets = doubles - (sums / np.maximum(counts, 1)[:, None])[labels]
    return {
        "class_sums": (sums / images).astype(np.float32),
        "class_shares": (counts / images).astype(np.float32),
        "scatter": (offsets.T @ offsets / images).astype(np.float32),
        "spread": np.array([(offsets**2).sum() / images], np.float32),
    }


def arrived(shared: Mapping[str, Floats]) -> bool:
    """Whether the statistics have come whole: a lossy codec brings them over several rounds.

    The classes' shares must make up the whole, the mean of unit vectors can be no longer than 1, and most of
    the spread must be in the scatter.
    """
    shares, spread = shared["class_shares"].astype(np.float64), float(shared["spread"][0])
    present = shares > _SMALLEST_SHARE
    lengths = np.linalg.norm(shared["class_sums"][present], axis=1) / shares[present]
    return bool(
        abs(shares.sum() - 1) < _TOLERANCE
        and (lengths < 1 + _TOLERANCE).all()
        and abs(np.trace(shared["scatter"]) - spread) < 2 * _TOLERANCE * spread
    )


def axes_of(shared: Mapping[str, Floats]) -> Axes:
    """Return the scatter's axes of shared arrays that hold at least one class.

    A scatter that went through a lossy codec is made a covariance again: symmetric, no negative eigenvalue,
    and what its trace lacks of the spread (low-rank updates bring the large directions first) put in evenly.
    """
    shares = shared["class_shares"].astype(np.float64)
    present = shares > _SMALLEST_SHARE
    means = shared["class_sums"].astype(np.float64) / np.maximum(shares, _SMALLEST_SHARE)[:, None]
    centre = means[present].mean(axis=0)
    scatter = shared["scatter"].astype(np.float64)
    unit = max(float(shared["spread"][0]), 1e-3) / len(scatter)
    values, vectors = np.linalg.eigh((scatter + scatter.T) / (2 * unit))
    values = np.maximum(values, 0)
    values += max(1 - float(values.mean()), 0)
    return Axes(values, vectors, unit, means, centre, present)


def one_hot(labels: Labels, classes: int) -> npt.NDArray[np.float64]:
    """Return (N, C), 1 where an image is of the class."""
    chosen: npt.NDArray[np.float64] = (labels[:, None] == np.arange(classes)).astype(np.float64)
    return chosen
