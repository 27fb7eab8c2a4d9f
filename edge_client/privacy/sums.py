"""What is summed over a site's images: of each a vector of bounded length.

For coordinates z of length 1 at most and class c, with e_c the c-th unit vector:

    v = (a e_c,  e_c z',  b z z')     |v|^2 = a^2 + |z|^2 + b^2 |z|^4  <=  a^2 + 1 + b^2

Everything of a symmetric matrix above its diagonal counts once, times the root of 2, so that lengths stay. A
sum of such vectors is linear, and C + C K + K (K + 1) / 2 numbers short: it can also be added up under secure
aggregation. The larger `a` and `b`, the less noise is in counts and moments, and the more in the sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmedclip.edge_client.heads.whitening import Labels, one_hot
from fedmedclip.edge_client.privacy.public_space import Doubles

COUNT_WEIGHT = 0.6
"""a: less than 1, for a count is wrong by a few images at most, a sum by a few lengths of coordinates."""
MOMENT_WEIGHT = 1.5
"""b: products of coordinates are shorter than these, and all images share one moment."""
LONGEST = float(np.sqrt(COUNT_WEIGHT**2 + 1 + MOMENT_WEIGHT**2))
"""The length of the longest vector of an image."""


@dataclass(frozen=True)
class ClassSums:
    """Counts (C,), sums of coordinates (C, K) and of their products (K, K), float64.

    `deviation` is that of the noise in every number of the vector that they come from; 0 where there is none.
    """

    counts: Doubles
    sums: Doubles
    moment: Doubles
    deviation: float

    @property
    def images(self) -> float:
        """How many images they are of, at least 1; a noisy number where there is noise."""
        return max(float(self.counts.sum()), 1.0)


def vectors_of(coordinates: Doubles, labels: Labels, classes: int) -> Doubles:
    """Return the vectors (N, L) of images at coordinates (N, K) in the unit ball, with labels (N,)."""
    images, directions = coordinates.shape
    chosen = one_hot(labels, classes)
    sums = (chosen[:, :, None] * coordinates[:, None, :]).reshape(images, classes * directions)
    rows, columns, factors = _upper(directions)
    moments = factors * coordinates[:, rows] * coordinates[:, columns]
    return np.concatenate([COUNT_WEIGHT * chosen, sums, MOMENT_WEIGHT * moments], axis=1)


def length_of(classes: int, directions: int) -> int:
    """Return L, how many numbers a vector has."""
    return classes + classes * directions + directions * (directions + 1) // 2


def sums_of(vector: Doubles, classes: int, directions: int, deviation: float) -> ClassSums:
    """Return what a sum of vectors (L,) says; `deviation` is that of the noise in it."""
    counts, sums, upper = np.split(vector, [classes, classes + classes * directions])
    rows, columns, factors = _upper(directions)
    moment = np.zeros((directions, directions))
    moment[rows, columns] = moment[columns, rows] = upper / factors / MOMENT_WEIGHT
    return ClassSums(counts / COUNT_WEIGHT, sums.reshape(classes, directions), moment, deviation)


def added(sums: Sequence[ClassSums]) -> ClassSums:
    """Return the sums of several sites together, as secure aggregation gives them."""
    return ClassSums(
        np.sum([one.counts for one in sums], axis=0),
        np.sum([one.sums for one in sums], axis=0),
        np.sum([one.moment for one in sums], axis=0),
        float(np.sqrt(sum(one.deviation**2 for one in sums))),
    )


def _upper(directions: int) -> tuple[Labels, Labels, Doubles]:
    rows, columns = np.triu_indices(directions)
    return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2.0))
