"""Noisy sums to statistics that others can use: what is made of a release alone costs no privacy.

The size of the noise is public. So class means are drawn to what zero-shot took them for on the public
reference set, moved to where the site's images lie, the more the noisier they are (empirical Bayes: how far
means really lie from there is what is left of their distance when the noise is taken off; Efron and Morris
1973). A class that the site does not have is noise alone: it is left with next to no share.
"""

import numpy as np

from fedmedclip.edge_client.privacy.public_space import Doubles, PublicSpace
from fedmedclip.edge_client.privacy.sums import COUNT_WEIGHT, MOMENT_WEIGHT, ClassSums
from fedmedclip.protocol.heads.head import NamedArrays

_LEAST_TAU = 0.02
"""Of the mean variance within classes: class means differ from zero-shot's by that much at least."""
_LEAST_WIDTH = 0.1
"""Of the mean variance within zero-shot's classes: a site's classes are not taken to be narrower."""
_LEAST_VARIANCE = 0.25
"""Of a scatter's mean variance: none of its directions is taken to be narrower."""


def denoised(sums: ClassSums, space: PublicSpace, minimum_group_size: float = 0) -> NamedArrays:
    """Return shared arrays, float32, as a site's statistics have them without privacy.

    `class_shares` (C,) make up 1, `class_sums` (C, D) lie in the space's directions about its centre,
    `scatter` (D, D) and `spread` (1,) are those within classes. Classes whose noisy
    count is below `minimum_group_size` are left out.
    """
    shares = _shares(sums, minimum_group_size)
    means = _class_means(sums, space, shares)
    return _arrays(space, shares, means, _scatter(sums, space, shares, means))


def public_statistics(space: PublicSpace) -> NamedArrays:
    """Return what these arrays are where no site tells anything: zero-shot's of the public reference set."""
    classes = len(space.class_means)
    return _arrays(space, np.full(classes, 1 / classes), space.class_means, space.scatter)


def _arrays(space: PublicSpace, shares: Doubles, means: Doubles, scatter: Doubles) -> NamedArrays:
    whole = space.scatter_of(scatter)
    arrays = {
        "class_shares": shares,
        "class_sums": shares[:, None] * space.embeddings_of(means),
        "scatter": whole,
        "spread": np.array([np.trace(whole)]),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _shares(sums: ClassSums, minimum_group_size: float) -> Doubles:
    counts = np.where(sums.counts < minimum_group_size, 0, np.maximum(sums.counts, 0))
    total = float(counts.sum())
    if total <= 0:
        return np.full(len(counts), 1 / len(counts))
    shares: Doubles = counts / total
    return shares


def _class_means(sums: ClassSums, space: PublicSpace, shares: Doubles) -> Doubles:
    """Return the class means (C, K) in coordinates, in the unit ball."""
    noise_of_count = sums.deviation / COUNT_WEIGHT
    counts = np.maximum(sums.counts, 1 + noise_of_count / 2)[:, None]
    measured = sums.sums / counts
    within = float(np.trace(space.scatter)) / len(space.scatter)
    variances = (sums.deviation / counts) ** 2 + within / counts
    variances = variances + (noise_of_count / counts) ** 2 * (measured**2).mean(axis=1, keepdims=True)
    # Whatever its classes are called, the site's images lie about its own mean.
    mean = sums.sums.sum(axis=0) / sums.images
    expected = space.class_means + mean - shares @ space.class_means
    squared = ((measured - expected) ** 2).mean(axis=1, keepdims=True)
    certainty = variances**-2
    tau = float((certainty * (squared - variances)).sum() / certainty.sum())
    tau = max(tau, _LEAST_TAU * within)
    means = expected + tau / (tau + variances) * (measured - expected)
    within_ball: Doubles = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1)
    return within_ball


def _scatter(sums: ClassSums, space: PublicSpace, shares: Doubles, means: Doubles) -> Doubles:
    """Return the scatter within classes (K, K) in coordinates.

    How wide it is the site says; of what shape, the site or zero-shot's classes, the more the noisier.
    """
    directions = len(space.scatter)
    measured = sums.moment / sums.images - (means.T * shares) @ means
    public = float(np.trace(space.scatter)) / directions
    noise = sums.deviation / MOMENT_WEIGHT / sums.images
    width = max(float(np.trace(measured)) / directions, _LEAST_WIDTH * public)
    certainty = width**2 / (width**2 + noise**2 / directions)
    width = public * (width / public) ** certainty
    values, vectors = np.linalg.eigh(measured)
    values = np.clip(values, _LEAST_VARIANCE * width, None)
    own = (vectors * (values * width / values.mean())) @ vectors.T
    trust = width**2 / (width**2 + directions * noise**2)
    scatter: Doubles = trust * own + (1 - trust) * (width / public) * space.scatter
    return scatter
