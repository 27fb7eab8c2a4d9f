"""A matrix as a product of two thin integer matrices, the same on every machine.

The subspace iteration of PowerSGD (Vogels et al. 2019, algorithm 1, with its warm start), each further pass
of which runs on the factors as they will be sent: the right factor is the least-squares answer to the
quantised left one and is quantised in turn, then the left one to the right one. So each pass corrects what
rounding the other factor did.

Floating-point sums depend on their order, and every BLAS has its own. So whatever is summed here is made of
integers in float64 whose sums stay below 2**53: those are exact in any order. The rest is single operations
on elements, which IEEE 754 fixes, in an order that this file fixes.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

MATRIX_BITS = 14
_VECTOR_BITS = 20
_COLD_PASSES = 3
_WARM_PASSES = 1
_QUANTISED_PASSES = 3
# Below this share of its own length that is new, a column counts as a combination of those before it.
_INDEPENDENT = 1e-9


@dataclass(frozen=True)
class Factors:
    """matrix ~ left @ diag(weights) @ right.T: left (m, r), right (n, r) of integers, weights (r,).

    All float64. Columns that would contribute nothing are left out, so r may be less than asked for.
    """

    left: Doubles
    right: Doubles
    weights: Doubles


@dataclass(frozen=True)
class Grid:
    """How factors are rounded: `steps` to a column's root mean square, integers up to `limit` <= 127."""

    steps: float
    limit: int

    def round_columns(self, columns: Doubles) -> tuple[Doubles, Doubles]:
        """Return the integers of (n, r) columns and the step of each column (0 for a column of zeros)."""
        lengths = _root_mean_squares(columns)
        step = lengths / self.steps
        integers = np.rint(columns / np.where(step > 0, step, 1.0))
        return np.clip(integers, -self.limit, self.limit), step


def integer_matrix(matrix: npt.NDArray[np.float32]) -> tuple[Doubles, float]:
    """Return integers up to 2**14 in float64 and their unit: integers * unit ~ matrix; unit 0 for zeros."""
    largest = np.abs(matrix).max(initial=np.float32(0))
    if largest == 0:
        return np.zeros(matrix.shape), 0.0
    integers = np.rint(matrix / largest * np.float32(1 << MATRIX_BITS)).astype(np.float64)
    return integers, float(largest) / (1 << MATRIX_BITS)


def factorise(matrix: Doubles, start: Doubles, grid: Grid, warm: bool) -> Factors:
    """Factorise an integer matrix (m, n) of `integer_matrix`, m and n at most 2**16.

    `start` (n, r) are any columns that are not all zero, best the right factor of the round before (`warm`).
    """
    right = start
    for _ in range(_WARM_PASSES if warm else _COLD_PASSES):
        left = _orthonormal(matrix @ _scaled_to_integers(right))
        right = matrix.T @ _scaled_to_integers(left)
    left_integers, _ = grid.round_columns(left)
    for remaining in range(_QUANTISED_PASSES, -1, -1):
        right_integers, weights = grid.round_columns(_answer(matrix.T @ left_integers, left_integers))
        if remaining:
            left_integers, _ = grid.round_columns(_answer(matrix @ right_integers, right_integers))
    used = left_integers.any(axis=0) & right_integers.any(axis=0)
    return Factors(left_integers[:, used], right_integers[:, used], weights[used])


def _answer(products: Doubles, factor: Doubles) -> Doubles:
    """Return the X that minimises ||M - factor @ X.T||, given M.T @ factor (or the same the other way)."""
    lower = _cholesky(factor.T @ factor)
    columns = list(np.ascontiguousarray(products.T))
    rank = len(columns)
    for i in range(rank):
        for j in range(i):
            columns[i] = columns[i] - lower[i][j] * columns[j]
        columns[i] = columns[i] / lower[i][i] if lower[i][i] else np.zeros_like(columns[i])
    for i in reversed(range(rank)):
        for j in range(i + 1, rank):
            columns[i] = columns[i] - lower[j][i] * columns[j]
        columns[i] = columns[i] / lower[i][i] if lower[i][i] else np.zeros_like(columns[i])
    return np.stack(columns, axis=1)


def _orthonormal(matrix: Doubles) -> Doubles:
    """Return an orthonormal basis of the columns (m, r); a dependent column gives zeros."""
    integers = _scaled_to_integers(matrix)
    lower = _cholesky(integers.T @ integers)
    columns = list(np.ascontiguousarray(integers.T))
    for i in range(len(columns)):
        for j in range(i):
            columns[i] = columns[i] - lower[i][j] * columns[j]
        columns[i] = columns[i] / lower[i][i] if lower[i][i] else np.zeros_like(columns[i])
    return np.stack(columns, axis=1)


def _cholesky(gram: Doubles) -> list[list[float]]:
    """Return L with L L^T = gram in plain floats; the row of a dependent column is all zeros."""
    rank = len(gram)
    lower = [[0.0] * rank for _ in range(rank)]
    for i in range(rank):
        for j in range(i):
            if lower[j][j]:
                total = float(gram[i, j])
                for k in range(j):
                    total -= lower[i][k] * lower[j][k]
                lower[i][j] = total / lower[j][j]
        total = float(gram[i, i])
        for k in range(i):
            total -= lower[i][k] * lower[i][k]
        if total > _INDEPENDENT * float(gram[i, i]):
            lower[i][i] = math.sqrt(total)
        else:
            lower[i] = [0.0] * rank
    return lower


def _scaled_to_integers(columns: Doubles) -> Doubles:
    """Return each column times its own factor, as integers whose squares and products can be summed."""
    bits = min(_VECTOR_BITS, (52 - len(columns).bit_length()) // 2)
    largest = np.abs(columns).max(axis=0, initial=0.0)
    return np.rint(columns / np.where(largest > 0, largest, 1.0) * float(1 << bits))


def _root_mean_squares(columns: Doubles) -> Doubles:
    integers = _scaled_to_integers(columns)
    largest = np.abs(columns).max(axis=0, initial=0.0)
    sums = (integers * integers).sum(axis=0)
    lengths = np.abs(integers).max(axis=0, initial=0.0)
    unit = largest / np.where(lengths > 0, lengths, 1.0)
    means: Doubles = np.sqrt(sums / len(columns)) * unit
    return means
