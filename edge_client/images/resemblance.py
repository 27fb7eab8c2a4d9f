"""How alike thumbnails are, and how alike they would be by chance.

Two measures, each a correlation between -1 and 1:

- **plain**: of the grey values of two thumbnails. Neighbouring slices of one patient reach 0.90 and more; but
  so do chest X-rays of different patients, which all show the same anatomy in the same place.
- **whitened**: of what is left of the thumbnails when the set's mean is taken away and each principal
  component is divided by its spread. What all images of a set have in common counts for nothing in it, so
  that only images that share their own peculiarities are alike.

Whether a value means anything is asked of the set itself: images are made up that have the set's mean and
covariance and no copies among them (random combinations of its images), and a threshold holds where such
images reach it hardly ever, `_CHANCE` of what the set does. Where the made-up images reach 0.90 plainly, that
is the anatomy, and only the whitened measure is used.

The whitened measure's constants were chosen on made-up sets, aligned chest-like images and the phantoms, with
copies of some as JPEG, smaller, brighter, noisier, blurred and turned by a degree, and looked at on brain
MRI, where near-copies of 0.90 plainly were first noticed. In the whitened measure such copies are above 0.7,
and almost all different images below 0.5 (docs/reference/images.md has the figures).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

PLAIN = 0.90
WHITENED = 0.50
COPY = 0.90
"""Whitened: the same image, re-saved or edited."""

_CHANCE = 0.01
_STEP = 0.05
_SAMPLE = 1500
_LEAST_MADE_UP = 200
# A thumbnail that varies less, in grey levels, shows nothing.
_LEAST_CONTRAST = 1.0
# The variance of a principal component, of thumbnails of unit length, at which it counts half.
_SPREAD = 1e-3
# Few images tell their covariance badly; this much more of it, shared out over them.
_UNCERTAINTY = 0.1
_NEGLIGIBLE = 0.1


@dataclass(frozen=True)
class Measure:
    """Both measures of one set, as products of rows, and the thresholds that hold in it.

    `whitened` float32 (N, Q) are unit vectors. The plain correlation of two images is at most the product of
    their rows of `plain` float32 (N, P); `correlations` says it exactly. `plain_threshold` is None where the
    plain measure tells nothing. Rows of images that show nothing are 0.
    """

    thumbnails: npt.NDArray[np.uint8]
    plain: Vectors
    whitened: Vectors
    plain_threshold: float | None
    whitened_threshold: float

    def correlations(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> Vectors:
        """Return the plain correlation, float32 (P,), of P pairs of rows."""
        found = np.empty(len(first), np.float32)
        for some in _blocks(len(first)):
            left, right = _unit_grey(self.thumbnails[first[some]]), _unit_grey(self.thumbnails[second[some]])
            found[some] = np.einsum("ij,ij->i", left, right)
        return found


def measure(thumbnails: npt.NDArray[np.uint8]) -> Measure:
    """Return the measures for thumbnails uint8 (N, S, S), N at least 1."""
    count = len(thumbnails)
    exact_mean, variances, directions = _principal_components(thumbnails)
    kept = variances > _NEGLIGIBLE * _SPREAD
    scales = np.sqrt(variances[kept] + _SPREAD + _UNCERTAINTY / count)
    whitening = (directions[:, kept] / scales).astype(np.float32)
    basis = np.linalg.qr(np.column_stack([exact_mean, directions[:, kept]]))[0].astype(np.float32)
    mean = exact_mean.astype(np.float32)
    plain = np.empty((count, basis.shape[1] + 1), np.float32)
    whitened = np.empty((count, whitening.shape[1]), np.float32)
    for rows in _blocks(count):
        vectors = _unit_grey(thumbnails[rows])
        plain[rows] = _projected(vectors, basis)
        whitened[rows] = _whitened(vectors, mean, whitening)
    return Measure(thumbnails, plain, whitened, *_thresholds(thumbnails, mean, whitening))


def _principal_components(
    thumbnails: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean (P,), variances (K,) and unit directions (P, K) of unit thumbnails."""
    count, size = len(thumbnails), thumbnails[0].size
    if count < size:
        grey = _unit_grey(thumbnails).astype(np.float64)
        mean = grey.mean(axis=0)
        _, lengths, directions = np.linalg.svd(grey - mean, full_matrices=False)
        return mean, lengths**2 / count, directions.T
    total, products = np.zeros(size), np.zeros((size, size))
    for rows in _blocks(count):
        grey = _unit_grey(thumbnails[rows]).astype(np.float64)
        total += grey.sum(axis=0)
        products += grey.T @ grey
    mean = total / count
    variances, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
    return mean, variances, directions


def _unit_grey(thumbnails: npt.NDArray[np.uint8]) -> Vectors:
    grey = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    grey -= grey.mean(axis=1, keepdims=True)
    return _unit(grey, _LEAST_CONTRAST * np.sqrt(grey.shape[1]))


def _unit(vectors: Vectors, least: float = 1e-6) -> Vectors:
    """Divide rows by their length, in place; those below the least length become 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(lengths, 1e-12)
    vectors[lengths[:, 0] < least] = 0
    return vectors


def _whitened(grey: Vectors, mean: Vectors, whitening: Vectors) -> Vectors:
    whitened = grey @ whitening - mean @ whitening
    whitened[~grey.any(axis=1)] = 0
    return _unit(whitened)


def _projected(grey: Vectors, basis: Vectors) -> Vectors:
    """Return coordinates in a basis, and the length of what is beside it: products become upper bounds.

    For unit vectors x, y with parts u, v beside the basis, x.y = (projections' product) + u.v, and u.v is at
    most |u| |v| (Cauchy and Schwarz).
    """
    inside = grey @ basis
    beside = np.sqrt(np.maximum(0, np.square(grey).sum(axis=1) - np.square(inside).sum(axis=1)))
    return np.column_stack([inside, beside])


def _thresholds(
    thumbnails: npt.NDArray[np.uint8], mean: Vectors, whitening: Vectors
) -> tuple[float | None, float]:
    generator = np.random.default_rng(0)
    sample = _unit_grey(thumbnails[np.sort(generator.permutation(len(thumbnails))[:_SAMPLE])])
    sample = sample[sample.any(axis=1)]
    if len(sample) < 2:
        return None, COPY
    made = max(_LEAST_MADE_UP, len(sample))
    weights = generator.standard_normal((made, len(sample)), dtype=np.float32) / np.sqrt(len(sample))
    made_up = weights @ (sample - sample.mean(axis=0)) + mean
    made_up = _unit(made_up - made_up.mean(axis=1, keepdims=True))
    found, chance = _pairs(sample), _pairs(made_up)
    plain = PLAIN if _is_rare(found, chance, PLAIN) else None
    found = _pairs(_whitened(sample, mean, whitening))
    chance = _pairs(_whitened(made_up, mean, whitening))
    whitened = WHITENED
    while whitened < COPY and not _is_rare(found, chance, whitened):
        whitened = round(whitened + _STEP, 2)
    return plain, whitened


def _pairs(vectors: Vectors) -> Vectors:
    product = vectors @ vectors.T
    pairs: Vectors = product[np.triu_indices(len(vectors), 1)]
    return pairs


def _is_rare(found: Vectors, chance: Vectors, threshold: float) -> bool:
    """Whether chance explains next to nothing of what is above a threshold."""
    return bool((chance >= threshold).mean() <= _CHANCE * (found >= threshold).mean())


def _blocks(count: int) -> list[slice]:
    size = 4096
    return [slice(start, start + size) for start in range(0, count, size)]
