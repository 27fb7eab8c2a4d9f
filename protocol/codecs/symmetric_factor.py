"""A symmetric matrix as one factor: directions of integers, each of which counts with a weight and its sign.

An eigenvector times the root of its eigenvalue's size is rounded in the same steps whatever the eigenvalue,
so large directions are finer than small ones. That is right for a covariance: of n images, the errors of
those vectors are also about equal in all of them. What no direction holds goes as a multiple of the identity.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.contraction import energy
from fedmedclip.protocol.codecs.eigen_directions import Directions, quadratic_forms
from fedmedclip.protocol.codecs.integer_models import LARGEST_INTEGER, Integers
from fedmedclip.protocol.codecs.scales import round_scales
from fedmedclip.protocol.codecs.subspace import solved

LARGEST_RANK = 64
LARGEST_WEIGHT = 255
_WHOLE_WEIGHT = 64
# Squared steps in squared units. With less, sums get so coarse that a rare class's mean is longer by noise
# than by what it says, and a discriminant turns against it; with more, directions are lost.
_SQUARED_STEP = 2.0
# A direction whose values are less than a third of a step, in the root of their mean square, is mostly zeros.
_LEAST_STEPS = 0.35

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SentFactor:
    """matrix ~ scale * rows.T @ diag(weights) @ rows + diagonal * identity.

    `rows` (r, n) and `weights` (r,), not zero, are integers; `scale` and the size of `diagonal` are scales.
    """

    scale: np.float32
    diagonal: np.float32
    weights: Integers
    rows: Integers

    def expand(self) -> Doubles:
        """Return the matrix (n, n), symmetric bit by bit: sums of integers below 2**53, each rounded once."""
        rows = self.rows.astype(np.float64)
        matrix: Doubles = (rows * self.weights.astype(np.float64)[:, None]).T @ rows
        matrix *= np.float64(self.scale)
        # A sum of negative zeros is a negative zero for some BLAS only; + 0.0 makes it positive for all.
        matrix += 0.0
        matrix[np.diag_indices_from(matrix)] += np.float64(self.diagonal)
        return matrix


def no_factor(size: int) -> SentFactor:
    """Return what says that a matrix (size, size) is zero."""
    return SentFactor(np.float32(0), np.float32(0), np.zeros(0, np.int64), np.zeros((0, size), np.int64))


def coarsest_unit(directions: Directions) -> float:
    """Return the unit from which on `factor_of` finds no direction worth sending."""
    largest = float(np.abs(directions.values - directions.rest).max(initial=0.0))
    return float(np.sqrt(largest / directions.vectors.shape[1]) / (_LEAST_STEPS * math.sqrt(_SQUARED_STEP)))


def factor_of(matrix: Floats, directions: Directions, unit: float) -> SentFactor:
    """Return the factor of a symmetric matrix in steps of about 1.4 units; it never makes matters worse."""
    nothing = no_factor(len(matrix))
    scale = round_scales(np.asarray([_SQUARED_STEP * unit * unit / _WHOLE_WEIGHT], np.float32))[0]
    if scale == 0:
        return nothing
    step = np.sqrt(_WHOLE_WEIGHT * np.float64(scale))
    lengths = np.sqrt(np.abs(directions.values - directions.rest))
    sent = lengths > _LEAST_STEPS * step * np.sqrt(float(len(matrix)))
    scaled = directions.vectors[sent] * (lengths[sent] / step)[:, None]
    rows = np.clip(np.rint(scaled), -LARGEST_INTEGER, LARGEST_INTEGER)
    weights, diagonal = _weights(matrix, rows, float(scale))
    rows, weights = rows[weights != 0], weights[weights != 0]
    factor = SentFactor(scale, diagonal, weights.astype(np.int64), rows.astype(np.int64))
    return factor if energy(matrix - factor.expand().astype(np.float32)) < energy(matrix) else nothing


def _weights(matrix: Floats, rows: Doubles, scale: float) -> tuple[Doubles, np.float32]:
    """Return the weights of rows and the multiple of the identity that leave out least, rounded."""
    size = len(matrix)
    products = rows @ rows.T
    gram = np.empty((len(rows) + 1, len(rows) + 1))
    gram[:-1, :-1] = products * products
    gram[:-1, -1] = gram[-1, :-1] = np.diagonal(products)
    gram[-1, -1] = size
    diagonal = np.diagonal(matrix)
    trace = _exact_sum(diagonal)
    wanted = np.append(quadratic_forms(rows, matrix), trace)
    if len(rows) == size:
        # As many directions as there are make up the identity themselves.
        gram[-1] = gram[:, -1] = wanted[-1] = 0.0
    answer = solved(gram, wanted[:, None])[:, 0]
    size_of_diagonal = round_scales(np.abs(answer[-1:]).astype(np.float32))[0]
    weights = np.clip(np.rint(answer[:-1] / scale), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    return weights, np.float32(np.copysign(size_of_diagonal, answer[-1]))


def _exact_sum(values: Floats) -> float:
    """Return the sum of values, the same in any order: they count as integers of 30 bits."""
    largest = float(np.abs(values).max(initial=np.float32(0)))
    if largest == 0.0:
        return 0.0
    integers = np.rint(values.astype(np.float64) * (float(1 << 30) / largest))
    return float(integers.sum()) * largest / float(1 << 30)
