"""Pairs of images that are alike, and whether their labels agree."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.data_report.findings import LIKENESSES, Likeness
from fedmedclip.edge_client.images.look_alikes import LookAlikes

_LOOK_ALIKE = LIKENESSES.index("look-alike")


@dataclass(frozen=True)
class Pair:
    """Two images of a survey, by position, that are alike; `correlation` is that of their thumbnails."""

    first: int
    second: int
    likeness: Likeness
    correlation: float


@dataclass(frozen=True)
class AlikePairs:
    """All P pairs, copies first and then the most alike: there may be millions.

    `positions` int64 (P, 2), `likenesses` int64 (P,) of `LIKENESSES`, `correlations` float32 (P,), and
    `across` bool (P,): whether the two have different labels.
    """

    positions: npt.NDArray[np.int64]
    likenesses: npt.NDArray[np.int64]
    correlations: npt.NDArray[np.float32]
    across: npt.NDArray[np.bool_]

    def counts(self, *, across: bool) -> dict[Likeness, int]:
        """Return how many pairs under two labels, or under one, there are of each likeness that occurs."""
        counts = np.bincount(self.likenesses[self.across == across], minlength=len(LIKENESSES)).tolist()
        return {likeness: count for likeness, count in zip(LIKENESSES, counts, strict=True) if count}

    def listed(self, most: int, *, across: bool, differing: bool = False) -> list[Pair]:
        """Return the first of the pairs; `differing` leaves out those with the same pixels."""
        chosen = self.across == across
        if differing:
            chosen &= self.likenesses > LIKENESSES.index("same pixels")
        rows = np.flatnonzero(chosen)[:most]
        return [
            Pair(first, second, LIKENESSES[self.likenesses[row]], float(self.correlations[row]))
            for row, (first, second) in zip(rows, self.positions[rows].tolist(), strict=True)
        ]

    def copies(self) -> npt.NDArray[np.int64]:
        """Return the positions int64 (C, 2) of pairs that are one image, as it is or edited."""
        copies: npt.NDArray[np.int64] = self.positions[self.likenesses != _LOOK_ALIKE]
        return copies


def alike_pairs(look_alikes: LookAlikes, keys: Sequence[bytes], labels: Sequence[str]) -> AlikePairs:
    """Sort what was found; `keys` are equal for equal files, and `labels` are those of the images."""
    first, second = look_alikes.pairs[:, 0], look_alikes.pairs[:, 1]
    keys_of, labels_of = _numbers(keys), _numbers(labels)
    likenesses = np.where(look_alikes.copies, LIKENESSES.index("near-copy"), _LOOK_ALIKE)
    likenesses[look_alikes.identical] = LIKENESSES.index("same pixels")
    same_file = look_alikes.identical & (keys_of[first] == keys_of[second])
    likenesses[same_file] = LIKENESSES.index("same bytes")
    order = np.lexsort((second, first, -look_alikes.closeness, likenesses))
    return AlikePairs(
        look_alikes.pairs[order],
        likenesses[order],
        look_alikes.correlations[order],
        (labels_of[first] != labels_of[second])[order],
    )


def _numbers(values: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.int64]:
    """Return equal numbers for equal values."""
    numbers: dict[str | bytes, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
