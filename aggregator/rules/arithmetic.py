"""Sums, norms and distances of heads that have the same bits on every machine."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.rules.rule import Floats, Updates
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

_BLOCK_VALUES = 1 << 24

Arrays = Mapping[str, npt.NDArray[np.float32] | Floats]


def ordered_sum(values: Floats) -> float:
    """Return the sum of float64 values of any shape.

    The second half is added to the first until one value is left: each step adds pairs of numbers, so the
    order is the same whatever the width of the processor's registers, and the error grows with log2(n).
    """
    left = values.reshape(-1)
    while left.size > 1:
        half = (left.size + 1) // 2
        folded = left[:half].copy()
        folded[: left.size - half] += left[half:]
        left = folded
    return float(left[0]) if left.size else 0.0


def norm(arrays: Arrays, specification: HeadSpecification) -> float:
    """Return the Euclidean norm of all values of a head."""
    return distance(arrays, None, specification)


def distance(left: Arrays, right: Arrays | None, specification: HeadSpecification) -> float:
    """Return the Euclidean distance of two heads; of one from zero where the other is None."""
    total = 0.0
    for tensor in specification.tensors:
        apart = left[tensor.name].astype(np.float64)
        if right is not None:
            apart -= right[tensor.name]
        total += ordered_sum(np.square(apart, out=apart))
    return math.sqrt(total)


def distances(updates: Updates, specification: HeadSpecification) -> list[list[float]]:
    """Return the distances between all updates."""
    sites = range(len(updates))
    squared = [[0.0] * len(updates) for _ in sites]
    for _, rows in blocks(updates, specification):
        for row in sites:
            one = rows[row].astype(np.float64)
            for column in range(row):
                squared[row][column] += ordered_sum(np.square(one - rows[column]))
    return [[math.sqrt(squared[max(row, column)][min(row, column)]) for column in sites] for row in sites]


def blocks(
    updates: Updates, specification: HeadSpecification
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield all updates side by side, some values at a time: which values of the head, and (sites, values).

    The values are counted through the arrays in the head's order. No more than 64 MiB are in memory; where
    all updates take more, each is read once per block. The blocks depend on nothing but the sizes.
    """
    width = max(1, min(specification.size, _BLOCK_VALUES // len(updates)))
    for start in range(0, specification.size, width):
        part = slice(start, min(start + width, specification.size))
        rows = np.empty((len(updates), part.stop - part.start), dtype=np.float32)
        for row, update in enumerate(updates):
            delta = update.delta()
            flat = np.concatenate([delta[tensor.name].reshape(-1) for tensor in specification.tensors])
            rows[row] = flat[part]
        yield part, rows


def unflattened(values: npt.NDArray[np.float32], specification: HeadSpecification) -> NamedArrays:
    """Return the head whose values, array after array, these are."""
    found, start = NamedArrays(), 0
    for tensor in specification.tensors:
        found[tensor.name] = values[start : start + tensor.size].reshape(tensor.shape)
        start += tensor.size
    return found


def lower_median(values: Sequence[float]) -> float:
    """Return the middle value, of an even number the lower one of the two: one of two cannot raise it."""
    return sorted(values)[(len(values) - 1) // 2]


def zeros(specification: HeadSpecification) -> dict[str, Floats]:
    """Return a head of zeros in float64."""
    return {tensor.name: np.zeros(tensor.shape, dtype=np.float64) for tensor in specification.tensors}


def rounded(arrays: Mapping[str, Floats]) -> NamedArrays:
    """Return a head in float32."""
    return {name: array.astype(np.float32) for name, array in arrays.items()}
