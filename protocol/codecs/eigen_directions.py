"""The directions in which a symmetric matrix is largest, the same on every machine.

Subspace iteration, then the eigenvectors of the small matrix that is left (Rayleigh and Ritz), by Jacobi's
rotations: LAPACK gives other bits on another machine. What is summed is made of integers, as `subspace.py`
says.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.subspace import (
    drawn_start,
    integer_matrix,
    multiplied,
    orthonormal,
    scaled_to_integers,
)

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_PASSES = 8
_FURTHER = 4
_UNIT_BITS = 20
_SWEEPS = 12
_NEGLIGIBLE = 2.0**-32


@dataclass(frozen=True)
class Directions:
    """matrix ~ vectors.T @ diag(values - rest) @ vectors + rest * identity.

    `vectors` (r, n) are unit rows, `values` (r,) their eigenvalues, largest in size first; `rest` is the mean
    of all others, or the median of all where there are no others.
    """

    values: Doubles
    vectors: Doubles
    rest: float


def leading_directions(matrix: Floats, number: int) -> Directions:
    """Return at most `number` directions of a symmetric matrix (n, n), n at most 2**16."""
    integers, unit = integer_matrix(matrix)
    sought = min(number + _FURTHER, len(matrix))
    if unit == 0.0 or number == 0:
        return Directions(np.zeros(0), np.zeros((0, len(matrix))), 0.0)
    basis = orthonormal(multiplied(drawn_start(len(matrix), sought), integers))
    for _ in range(_PASSES):
        basis = orthonormal(multiplied(scaled_to_integers(basis), integers))
    # One step of Gram and Schmidt in integers is not precise enough where values fall steeply.
    basis = orthonormal(basis)
    rows = np.rint(basis * float(1 << _UNIT_BITS))
    products = multiplied(rows, integers)
    values, turns = _eigen(_inner(products, rows) * (unit / (1 << _UNIT_BITS) ** 2))
    order = np.argsort(-np.abs(values), kind="stable")[: min(number, sought)]
    turned = np.rint(turns[order] * float(1 << _UNIT_BITS)) @ rows
    values = values[order]
    others = len(matrix) - len(values)
    trace = float(np.diagonal(integers).astype(np.float64).sum()) * unit
    rest = (trace - math.fsum(values)) / others if others else float(np.sort(values)[len(values) // 2])
    return Directions(values, turned / float(1 << 2 * _UNIT_BITS), rest)


def quadratic_forms(vectors: Doubles, matrix: Floats) -> Doubles:
    """Return v @ matrix @ v of each row of integers (r, n) below 2**13: float64 (r,)."""
    integers, unit = integer_matrix(matrix)
    forms: Doubles = np.diagonal(_inner(multiplied(vectors, integers), vectors)) * unit
    return forms


def _inner(products: Doubles, rows: Doubles) -> Doubles:
    """Return products @ rows.T, of products that are rounded so far that sums are exact."""
    largest = float(np.abs(products).max(initial=0.0))
    beside = float(np.abs(rows).max(initial=0.0)) * rows.shape[1]
    excess = max(0, math.frexp(largest)[1] + math.frexp(beside)[1] - 53)
    sums: Doubles = np.rint(np.ldexp(products, -excess)) @ rows.T
    return np.ldexp(sums, excess)


def _eigen(matrix: Doubles) -> tuple[Doubles, Doubles]:
    """Return eigenvalues (n,) and eigenvectors as rows (n, n), by Jacobi's method, one pair after another."""
    rest, turns = (matrix + matrix.T) / 2, np.eye(len(matrix))
    negligible = _NEGLIGIBLE * float(np.abs(rest).max())
    for _ in range(_SWEEPS):
        rotated = False
        for p in range(len(matrix)):
            for q in range(p + 1, len(matrix)):
                between = float(rest[p, q])
                if abs(between) > negligible:
                    rotated = True
                    cosine, sine = _rotation((float(rest[q, q]) - float(rest[p, p])) / (2 * between))
                    for turned in (rest, rest.T, turns):
                        first, second = turned[p].copy(), turned[q].copy()
                        turned[p] = cosine * first - sine * second
                        turned[q] = sine * first + cosine * second
        if not rotated:
            break
    return np.diagonal(rest).copy(), turns


def _rotation(theta: float) -> tuple[float, float]:
    tangent = math.copysign(1.0, theta) / (abs(theta) + math.sqrt(theta * theta + 1))
    cosine = 1 / math.sqrt(tangent * tangent + 1)
    return cosine, tangent * cosine
