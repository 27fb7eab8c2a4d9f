"""The factors to send of a group: those asked for, or simpler ones where those would do harm.

Thin factors of few bits can leave out more than they were to send. At nearly full rank the columns of the
rounded factor depend on each other so nearly that rounding the other one adds many times the energy that was
wanted; coarse steps round rows of equal values to nothing and cut off a single large one; columns brought to
the size of others drown what is large. So what is sent is decoded here first. Lower ranks, finer steps, steps
that reach the largest value, and columns in their own size are tried until one brings a fair share.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.contraction import energy
from fedmedclip.protocol.codecs.groups import Exponents, Floats, Group, join
from fedmedclip.protocol.codecs.scales import round_scales
from fedmedclip.protocol.codecs.sent_group import SentGroup, nothing
from fedmedclip.protocol.codecs.subspace import Factors, Grid, drawn_start, factorise, integer_matrix
from fedmedclip.protocol.errors import CodecError
from fedmedclip.protocol.heads.head import NamedArrays

FAIR = 0.5
"""Of the energy that as many columns as are sent hold at least in the best factorisation: r / least side."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Approximation:
    """What is to be sent of a group; `fair`: it brings what so many columns should.

    `left` is the share of the group's energy that it leaves out, 0 to 1.
    """

    sent: SentGroup
    fair: bool
    left: float


def approximate(
    group: Group, arrays: NamedArrays, rank: int, grid: Grid, start: Doubles | None
) -> Approximation:
    """Return the factors of this rank and grid; no array of the group is worse off than with nothing."""
    values, exponents = join(group, arrays)
    warm = start is not None
    start = np.zeros((0, group.columns)) if start is None else start[:rank]
    return _judged(group, arrays, _factors(group, values, exponents, rank, grid, start, warm), rank)


def approximate_otherwise(group: Group, arrays: NamedArrays, rank: int, grid: Grid) -> Approximation:
    """Return the first fair one of simpler approximations; when none is, the one that leaves out least.

    They start at the row of the largest value, which, unlike a start that was drawn, lies in the row space.
    """
    best = Approximation(nothing(group), False, 1.0)
    for simpler_rank, simpler_grid, balanced in _simpler(group, rank, grid):
        values, exponents = join(group, arrays, balanced)
        start = _largest_row(values)
        sent = _factors(group, values, exponents, simpler_rank, simpler_grid, start, warm=False)
        found = _judged(group, arrays, sent, simpler_rank)
        if found.fair:
            return found
        if found.left < best.left:
            best = found
    return best


def _simpler(group: Group, rank: int, grid: Grid) -> Iterator[tuple[int, Grid, bool]]:
    finer = replace(grid, steps=max(1.0, grid.steps))
    for balanced in (True, False) if group.vectors else (True,):
        for other in dict.fromkeys((grid, finer, replace(finer, reaching=True))):
            lower = rank
            while lower >= 1:
                yield lower, other, balanced
                lower //= 2


def _judged(group: Group, arrays: NamedArrays, sent: SentGroup, rank: int) -> Approximation:
    """Take back what would leave an array worse off than nothing, and say whether the rest is fair."""
    nothing_of_it = Approximation(nothing(group), False, 1.0)
    try:
        decoded = sent.expand(group)
    except CodecError:
        return nothing_of_it
    wanted = {name: energy(arrays[name]) for name in decoded}
    left = {name: energy(arrays[name] - decoded[name]) for name in decoded}
    if left[group.matrix.name] > wanted[group.matrix.name]:
        return nothing_of_it
    worse = [vector.name for vector in group.vectors if left[vector.name] > wanted[vector.name]]
    if worse:
        sent = _without(group, sent, worse)
        left |= {name: wanted[name] for name in worse}
    total, total_left = math.fsum(wanted.values()), math.fsum(left.values())
    fair = total_left <= (1 - FAIR * rank / min(group.shape)) * total
    return Approximation(sent, fair, total_left / total if total else 0.0)


def _without(group: Group, sent: SentGroup, vectors: list[str]) -> SentGroup:
    """Send nothing of some of the vectors: zeros in their rows of the right factor."""
    right = sent.right.copy()
    for number, vector in enumerate(group.vectors):
        if vector.name in vectors:
            right[group.matrix_columns + number] = 0
    return replace(sent, right=right)


def _factors(
    group: Group, values: Floats, exponents: Exponents, rank: int, grid: Grid, start: Doubles, warm: bool
) -> SentGroup:
    on = values.any(axis=1)
    integers, unit = integer_matrix(values if on.all() else values[on])
    if unit == 0.0 or rank == 0:
        return nothing(group)
    if len(start) < rank:
        start = np.concatenate([start, drawn_start(group.columns, rank - len(start))])
    factors = factorise(integers, start, grid, warm)
    return _weigh(group, np.flatnonzero(~on), exponents, factors, unit)


def _largest_row(values: Floats) -> Doubles:
    """Return the row that holds the largest value, as integers up to 127: (1, columns)."""
    row = values[np.abs(values).argmax() // values.shape[1]].astype(np.float64)
    largest = float(np.abs(row).max())
    integers: Doubles = np.rint(row * (127 / largest if largest else 0.0))
    return integers.reshape(1, -1)


def _weigh(
    group: Group, off: npt.NDArray[np.int64], exponents: Exponents, factors: Factors, unit: float
) -> SentGroup:
    """Round the weights to bytes: multiples of a scale that makes the largest of them 255."""
    weights = factors.weights * unit
    scale = round_scales((weights.max(initial=0.0, keepdims=True) / 255).astype(np.float32))[0]
    if scale == 0:
        return nothing(group)
    multiples = np.rint(weights / np.float64(scale))
    kept = multiples >= 1
    return SentGroup(
        off,
        scale,
        multiples[kept].astype(np.uint8),
        exponents,
        factors.left[kept].T.astype(np.int16),
        factors.right[kept].T.astype(np.int16),
    )
