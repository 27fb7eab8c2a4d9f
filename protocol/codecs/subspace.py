"""A matrix as a product of two thin integer matrices, the same on every machine.

The subspace iteration of PowerSGD (Vogels et al. 2019, algorithm 1, with its warm start), each further pass
of which runs on the factors as they will be sent: the right factor is the least-squares answer to the
quantised left one and is quantised in turn, then the left one to the right one. So each pass corrects what
rounding the other factor did.

Floating-point sums depend on their order, and every BLAS has its own. So whatever is summed here is made of
integers whose sums stay below 2**24 in float32, or below 2**53 in float64: those are exact in any order. The
rest is single operations on elements, which IEEE 754 fixes, in an order that this file fixes.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

MATRIX_BITS = 13
_VECTOR_BITS = 20
_COLD_PASSES = 3
_QUANTISED_PASSES = 2
# Below this share of its own length that is new, a column counts as a combination of those before it.
_INDEPENDENT = 1e-9


@dataclass(frozen=True)
class Factors:
    """matrix ~ left.T @ diag(weights) @ right: left (r, m), right (r, n) of integers, weights (r,).

    All float64. Rows that would contribute nothing are left out, so r may be less than asked for.
    """

    left: Doubles
    right: Doubles
    weights: Doubles


@dataclass(frozen=True)
class Grid:
    """How factors are rounded: `steps` to a column's root mean square, integers up to `limit` <= 127.

    What is larger than `limit` steps is cut off, unless the grid is `reaching`: then steps are as large as
    the largest value needs.
    """

    steps: float
    limit: int
    reaching: bool = False

    def round_rows(self, rows: Doubles) -> tuple[Doubles, Doubles]:
        """Return the integers of (r, n) rows and the step of each row (0 for a row of zeros)."""
        step = _root_mean_squares(rows) / self.steps
        if self.reaching:
            step = np.maximum(step, np.abs(rows).max(axis=1, initial=0.0) / self.limit)
        integers = np.rint(rows / np.where(step > 0, step, 1.0)[:, None])
        return np.clip(integers, -self.limit, self.limit), step


def integer_matrix(matrix: Floats) -> tuple[Floats, float]:
    """Return integers up to 2**13 in float32 and their unit: integers * unit ~ matrix; unit 0 for zeros."""
    largest = max(matrix.max(initial=np.float32(0)), -matrix.min(initial=np.float32(0)))
    if largest == 0:
        return np.zeros(matrix.shape, np.float32), 0.0
    integers = matrix / largest
    integers *= np.float32(1 << MATRIX_BITS)
    return np.rint(integers, out=integers), float(largest) / (1 << MATRIX_BITS)


def factorise(matrix: Floats, start: Doubles, grid: Grid, warm: bool) -> Factors:
    """Factorise an integer matrix (m, n) of `integer_matrix`, m and n at most 2**16.

    `start` (r, n) are any rows of integers up to 127 that are not all zero, best the right factor of the
    round before (`warm`).
    """
    left = orthonormal(multiplied(start, matrix.T))
    for _ in range(0 if warm else _COLD_PASSES - 1):
        right = multiplied(scaled_to_integers(left), matrix)
        left = orthonormal(multiplied(scaled_to_integers(right), matrix.T))
    left_integers, _ = grid.round_rows(left)
    for remaining in range(_QUANTISED_PASSES, -1, -1):
        right_integers, weights = grid.round_rows(_answer(multiplied(left_integers, matrix), left_integers))
        if remaining:
            products = multiplied(right_integers, matrix.T)
            left_integers, _ = grid.round_rows(_answer(products, right_integers))
    used = left_integers.any(axis=1) & right_integers.any(axis=1)
    return Factors(left_integers[used], right_integers[used], weights[used])


def multiplied(integers: Doubles, matrix: Floats) -> Doubles:
    """Return integers (r, n) @ matrix (n, m) exactly, in float32 where its sums fit."""
    bound = float(np.abs(integers).max(initial=0.0)) * (1 << MATRIX_BITS) * len(matrix)
    if bound < 1 << 24:
        # BLAS is twice as fast with the large matrix on the left.
        return (matrix.T @ integers.T.astype(np.float32)).T.astype(np.float64, order="C")
    products: Doubles = integers @ matrix.astype(np.float64)
    return products


def drawn_start(columns: int, rank: int) -> Doubles:
    """Return rows to begin a search with, (rank, columns): odd integers from -7 to 7, drawn."""
    bits = np.random.Philox(key=[columns, rank]).random_raw(columns * rank)
    odd = 2.0 * (bits >> np.uint64(61)).astype(np.float64) - 7.0
    return odd.reshape(rank, columns)


def _answer(products: Doubles, factor: Doubles) -> Doubles:
    """Return the X that minimises ||M - factor.T @ X||, given factor @ M (or the same the other way)."""
    return solved(factor @ factor.T, products)


def solved(gram: Doubles, products: Doubles) -> Doubles:
    """Return the X with gram @ X = products, (r, n); zeros in the row of a dependent row of `gram`."""
    lower = _cholesky(gram)
    rows = _forwards(lower, products)
    rank = len(rows)
    for i in reversed(range(rank)):
        for j in range(i + 1, rank):
            rows[i] -= lower[j][i] * rows[j]
        rows[i] = rows[i] / lower[i][i] if lower[i][i] else 0.0
    return rows


def orthonormal(rows: Doubles) -> Doubles:
    """Return an orthonormal basis of the rows (r, m); a dependent row gives zeros."""
    integers = scaled_to_integers(rows)
    return _forwards(_cholesky(integers @ integers.T), integers)


def _forwards(lower: list[list[float]], rows: Doubles) -> Doubles:
    """Return L^-1 rows; zeros for the rows of L that are."""
    solved = rows.copy()
    for i in range(len(rows)):
        for j in range(i):
            solved[i] -= lower[i][j] * solved[j]
        solved[i] = solved[i] / lower[i][i] if lower[i][i] else 0.0
    return solved


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


def scaled_to_integers(rows: Doubles) -> Doubles:
    """Return each row times its own factor, as integers whose squares and products can be summed."""
    bits = min(_VECTOR_BITS, (52 - rows.shape[1].bit_length()) // 2)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    return np.rint(rows / np.where(largest > 0, largest, 1.0)[:, None] * float(1 << bits))


def _root_mean_squares(rows: Doubles) -> Doubles:
    integers = scaled_to_integers(rows)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    sums = (integers * integers).sum(axis=1)
    lengths = np.abs(integers).max(axis=1, initial=0.0)
    unit = largest / np.where(lengths > 0, lengths, 1.0)
    means: Doubles = np.sqrt(sums / rows.shape[1]) * unit
    return means
