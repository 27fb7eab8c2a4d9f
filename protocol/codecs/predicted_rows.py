"""A matrix as rows of integers, each the difference to what is known of it before.

Sums of a class's embeddings have a large part in common and lie mostly in the directions in which images
vary: in those of a symmetric matrix of as many columns, which are sent anyway. So a row is predicted as a
mixture of these directions plus a multiple of the sum of the rows before it, and what is left of it is
coded. The prediction is made from what a receiver has, so that no error is carried on.

Rows of larger values are coded in larger steps, in proportion to the root of their size: of n images of a
class, the error of their sum grows so. The largest come first, since they predict the others best.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.contraction import energy
from fedmedclip.protocol.codecs.integer_models import LARGEST_INTEGER, Integers
from fedmedclip.protocol.codecs.scales import mean_magnitudes, round_scales
from fedmedclip.protocol.codecs.subspace import solved

LARGEST_STEP = 15
_FOLLOWING = 128
_RATIO_BITS = 18

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SentRows:
    """What is sent of a matrix (rows, columns): all integers but the scale.

    `steps` (rows,) from 0 to 15: a row's values are multiples of step * scale, a row of step 0 is zero.
    `mixtures` (rows, r): how much of each of r directions. `follows` (rows,): of the sum of the rows before.
    """

    scale: np.float32
    steps: Integers
    mixtures: Integers
    follows: Integers
    integers: Integers

    def order(self) -> Integers:
        """Return the rows that are sent, those of large steps first and else as they stand."""
        order = np.argsort(-self.steps, kind="stable")
        return order[self.steps[order] > 0]

    def expand(self, directions: Integers) -> Doubles:
        """Return the matrix (rows, columns), given directions (r, columns); it may not be finite."""
        values, before = np.zeros(self.integers.shape), np.zeros(self.integers.shape[1])
        parts = _parts(directions)
        for row in self.order():
            step = np.float64(self.scale) * float(self.steps[row])
            values[row] = _row(
                step, self.mixtures[row] @ parts + self.integers[row], self.follows[row], before
            )
            before = before + values[row]
        return values


def no_rows(rows: int, columns: int, directions: int) -> SentRows:
    """Return what says that a matrix is zero."""
    zeros = np.zeros(rows, np.int64)
    mixtures = np.zeros((rows, directions), np.int64)
    return SentRows(np.float32(0), zeros, mixtures, zeros, np.zeros((rows, columns), np.int64))


def root_sizes(matrix: Floats) -> Doubles:
    """Return the root of about each row's length, float64 (rows,)."""
    sizes: Doubles = np.sqrt(mean_magnitudes(matrix).astype(np.float64) * math.sqrt(matrix.shape[1]))
    return sizes


def coarsest_unit(matrix: Floats) -> float:
    """Return the unit from which on `rows_of` finds nothing but zeros."""
    roots = root_sizes(matrix)
    largest = np.abs(matrix).max(axis=1, initial=np.float32(0)).astype(np.float64)
    return float((2 * largest / np.where(roots > 0, roots, 1.0)).max(initial=0.0))


def rows_of(matrix: Floats, directions: Integers, unit: float) -> SentRows:
    """Return a matrix (rows, columns) in steps of `unit` times the root of a row's size.

    No row is further from what it should be than zeros are.
    """
    steps, scale = _steps(unit * root_sizes(matrix))
    sent = no_rows(len(matrix), matrix.shape[1], len(directions))
    if scale == 0:
        return sent
    sent = SentRows(scale, steps, sent.mixtures, sent.follows.copy(), sent.integers)
    span, before = _Span(directions), np.zeros(matrix.shape[1])
    for row in sent.order():
        step = np.float64(scale) * float(steps[row])
        values = _predicted(sent, row, matrix[row], step, span, before)
        before = before + values
        if not (sent.integers[row].any() or sent.mixtures[row].any() or sent.follows[row]):
            steps[row] = 0
    return sent


def _predicted(
    sent: SentRows, row: int, wanted: Floats, step: np.float64, span: "_Span", before: Doubles
) -> Doubles:
    """Fill in one row of what is sent, and return its values."""
    in_steps = wanted.astype(np.float64) / step
    mixture, follow = span.mixture(in_steps, before / step)
    predicted = _row(step, mixture @ span.parts, follow, before)
    integers = _rounded((wanted - predicted) / step)
    values = _row(step, mixture @ span.parts + integers, follow, before)
    if energy(wanted - values.astype(np.float32)) > energy(wanted):
        mixture, follow, integers = np.zeros_like(mixture), 0, _rounded(in_steps)
        values = _row(step, integers, follow, before)
    sent.mixtures[row], sent.follows[row], sent.integers[row] = mixture, follow, integers
    return values


class _Span:
    """What directions can say of a row, in steps."""

    def __init__(self, directions: Integers) -> None:
        self._directions = directions.astype(np.float64)
        self._sizes = _part_sizes(directions)
        self._inverse = solved(self._directions @ self._directions.T, np.eye(len(directions)))
        self.parts = _parts(directions)

    def mixture(self, wanted: Doubles, before: Doubles) -> tuple[Integers, int]:
        """Return the mixture of directions and the multiple of `before` that together come nearest."""
        limit = float(1 << _RATIO_BITS)
        wanted, before = (np.clip(np.rint(values), -limit, limit) for values in (wanted, before))
        # What of `before` lies outside the directions decides how much of it there is.
        outside = np.rint(before - _rounded(self._answer(before) * self._sizes) @ self.parts)
        length = float(outside @ outside)
        follow = int(_rounded(np.asarray([outside @ wanted / length * _FOLLOWING]))[0]) if length else 0
        rest = np.rint(wanted - follow / _FOLLOWING * before)
        return _rounded(self._answer(rest) * self._sizes), follow

    def _answer(self, row: Doubles) -> Doubles:
        """Return the multiples of directions that come nearest to a row of integers."""
        products, answer = self._directions @ row, np.zeros(len(self._directions))
        for column, product in zip(self._inverse.T, products, strict=True):
            answer = answer + column * product
        return answer


def _row(step: np.float64, in_steps: Doubles | Integers, follow: int, before: Doubles) -> Doubles:
    values: Doubles = in_steps * step + (float(follow) / _FOLLOWING) * before
    return values


def _parts(directions: Integers) -> Doubles:
    """Return directions as mixtures count them: each has a length of about 2 to 4 steps."""
    parts: Doubles = directions / _part_sizes(directions)[:, None]
    return parts


def _part_sizes(directions: Integers) -> Doubles:
    """Return 2**e of each direction, with e the binary digits of its length less 2, at least 0."""
    lengths = [math.isqrt(int(total)) for total in (directions * directions).sum(axis=1)]
    return np.asarray([float(1 << max(0, length.bit_length() - 2)) for length in lengths])


def _steps(wanted: Doubles) -> tuple[Integers, np.float32]:
    scale = round_scales((wanted.max(initial=0.0, keepdims=True) / LARGEST_STEP).astype(np.float32))[0]
    if scale == 0:
        return np.zeros(len(wanted), np.int64), scale
    steps = np.clip(np.rint(wanted / np.float64(scale)), 1, LARGEST_STEP)
    return np.where(wanted > 0, steps, 0).astype(np.int64), scale


def _rounded(values: Doubles) -> Integers:
    return np.clip(np.rint(values), -LARGEST_INTEGER, LARGEST_INTEGER).astype(np.int64)
