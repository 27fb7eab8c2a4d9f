"""Linear classifiers in closed form: one eigendecomposition serves every ridge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
"""What may be added to a matrix's eigenvalues, in units of their mean."""
_NOTHING = 1e-10


@dataclass(frozen=True)
class Linear:
    """scores (N, C) = embeddings (N, D) @ weights.T (D, C) + offsets (C,); the largest is the answer."""

    weights: Doubles
    offsets: Doubles

    def answers(self, embeddings: Doubles) -> Labels:
        """Return the class (N,) that each embedding (N, D) is called by."""
        found: Labels = (embeddings @ self.weights.T + self.offsets).argmax(axis=1)
        return found

    def through(self, directions: Doubles) -> "Linear":
        """Return the same classifier for embeddings that still have all values: `directions` is (D, m)."""
        return Linear(self.weights @ directions.T, self.offsets)


class System:
    """A symmetric matrix (D, D) to solve linear equations with, at any ridge.

    What quantisation made of a positive semidefinite matrix need not be one: eigenvalues below 0 count as 0,
    and where nothing is left of them the solution is the shortest.
    """

    def __init__(self, matrix: Doubles) -> None:
        values, self._vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        self._values = np.maximum(values, 0)

    @property
    def mean(self) -> float:
        """The mean eigenvalue."""
        return float(self._values.mean())

    def solve(self, sides: Doubles, ridge: float) -> Doubles:
        """Return X (D, n) of (matrix + ridge * I) X = sides (D, n)."""
        values = self._values + ridge
        kept = values > _NOTHING * max(float(values.max()), 1e-300)
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=kept)
        solution: Doubles = self._vectors @ (inverse[:, None] * (self._vectors.T @ sides))
        return solution


def unit_length(weights: Doubles) -> Doubles:
    """Return rows (C, D) at length 1, but rows of 0 as they are."""
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    unit: Doubles = np.divide(weights, lengths, out=np.zeros_like(weights), where=lengths > 0)
    return unit


def without_offsets(weights: Doubles) -> Linear:
    """Return the classifier of weights (C, D) alone."""
    return Linear(weights, np.zeros(len(weights)))


def summed(arrays: Sequence[Doubles]) -> Doubles:
    """Return the sum of arrays of one shape."""
    total: Doubles = np.sum(np.stack(arrays), axis=0)
    return total
