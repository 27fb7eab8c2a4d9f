"""Which images of a set look alike: identical pixels in other files, copies, and neighbouring slices.

`resemblance` says what is measured. Every pair above a threshold is a link, and images are of one group that
links connect. Where a chain of links would gather more than `LARGEST_SHARE` of all images, which no patient
has, it is cut at its weakest links until it does not: images that all look a little like the next one would
otherwise end up in one part. Copies are never parted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.images.appearance import Appearances
from fedmedclip.edge_client.images.resemblance import COPY, PLAIN, WHITENED, Measure, measure

LARGEST_SHARE = 0.2
"""Of all images, in one group that look-alikes alone make."""
LARGEST_ANYWAY = 10

_BLOCK = 2048
# About 30 bytes each; a set that has more gives up its weakest.
_MOST_LINKS = 5_000_000


@dataclass(frozen=True)
class LookAlikes:
    """Pairs of rows that look alike, the closest first.

    `pairs` int64 (P, 2), the lower row first; `closeness` float32 (P,) from 0 at the threshold to 1;
    `correlations` float32 (P,) of the thumbnails; `identical` and `copies` bool (P,): identical pixels, and
    the same image re-saved or edited (identical ones too). Of many images with identical pixels each is
    linked to the first alone, and only that to others. `plain_threshold` is None, and `whitened_threshold`
    higher than usual, where images of this set look alike by nature.
    """

    pairs: npt.NDArray[np.int64]
    closeness: npt.NDArray[np.float32]
    correlations: npt.NDArray[np.float32]
    identical: npt.NDArray[np.bool_]
    copies: npt.NDArray[np.bool_]
    plain_threshold: float | None = None
    whitened_threshold: float = COPY

    def copies_only(self) -> "LookAlikes":
        """Return the pairs that show the same image."""
        kept = self.copies
        return replace(
            self,
            pairs=self.pairs[kept],
            closeness=self.closeness[kept],
            correlations=self.correlations[kept],
            identical=self.identical[kept],
            copies=kept[kept],
        )


@dataclass(frozen=True)
class _Links:
    pairs: npt.NDArray[np.int64]
    closeness: npt.NDArray[np.float32]
    copies: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pairs)

    def those(self, kept: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "_Links":
        return _Links(self.pairs[kept], self.closeness[kept], self.copies[kept])


def find_look_alikes(appearances: Appearances) -> LookAlikes:
    """Return the pairs of images that look alike, whatever their files are.

    Time grows with the square of the number of images (seconds for 20,000), memory with the number.
    """
    firsts: dict[bytes, int] = {}
    first_of = np.array(
        [firsts.setdefault(pixels, row) for row, pixels in enumerate(appearances.pixel_hashes)],
        dtype=np.int64,
    )
    others = np.flatnonzero(first_of != np.arange(len(first_of)))
    identical = np.column_stack([first_of[others], others])
    rows = np.array(list(firsts.values()), dtype=np.int64)
    if len(rows) < 2:
        measured, links, correlations = None, _no_links(), np.empty(0, np.float32)
    else:
        measured = measure(appearances.thumbnails[rows])
        links = _links(measured)
        links = links.those(np.argsort(-links.closeness, kind="stable"))
        correlations = measured.correlations(links.pairs[:, 0], links.pairs[:, 1])
    count = len(identical)
    return LookAlikes(
        np.concatenate([identical, rows[links.pairs]]),
        np.concatenate([np.ones(count, np.float32), links.closeness]),
        np.concatenate([np.ones(count, np.float32), correlations]),
        np.arange(count + len(links)) < count,
        np.concatenate([np.ones(count, bool), links.copies]),
        None if measured is None else measured.plain_threshold,
        COPY if measured is None else measured.whitened_threshold,
    )


def group_rows(
    look_alikes: LookAlikes, same: Sequence[npt.NDArray[np.int64]]
) -> tuple[npt.NDArray[np.int64], int]:
    """Return the group of each of N rows, int64 (N,), the lowest of its rows; and how many links were cut.

    Rows with equal numbers, from 0, in one of the arrays int64 (N,) `same` are of one group whatever its
    size, as are copies; -1 is nobody's number.
    """
    count = len(same[0])
    whole, kept = _Sets(count), _Sets(count)
    for numbers in same:
        first_of: dict[int, int] = {}
        for row, number in enumerate(numbers.tolist()):
            if number >= 0 and (first := first_of.setdefault(number, row)) != row:
                whole.join(first, row)
                kept.join(first, row)
    for first, second in look_alikes.pairs[look_alikes.copies].tolist():
        whole.join(first, second)
        kept.join(first, second)
    largest = max(LARGEST_ANYWAY, int(LARGEST_SHARE * count))
    cut = 0
    for first, second in look_alikes.pairs[~look_alikes.copies].tolist():
        # Once a chain is too long, none of its later, weaker links holds.
        if whole.join(first, second) <= largest:
            kept.join(first, second)
        else:
            cut += kept.root(first) != kept.root(second)
    return np.array([kept.root(row) for row in range(count)], dtype=np.int64), cut


class _Sets:
    """Disjoint sets of rows; the root of each is its lowest row."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))
        self._sizes = [1] * count

    def root(self, row: int) -> int:
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def join(self, first: int, second: int) -> int:
        """Make one set of two, and return its size."""
        low, high = sorted((self.root(first), self.root(second)))
        if low != high:
            self._parents[high] = low
            self._sizes[low] += self._sizes[high]
        return self._sizes[low]


def _links(measured: Measure) -> _Links:
    """Compare all with all, block by block, so that memory is bounded."""
    found = [_no_links()]
    total = 0
    least = 0.0
    count = len(measured.whitened)
    for top in range(0, count, _BLOCK):
        for left in range(top, count, _BLOCK):
            rows, columns = slice(top, top + _BLOCK), slice(left, left + _BLOCK)
            whitened = measured.whitened[rows] @ measured.whitened[columns].T
            linked = whitened >= measured.whitened_threshold
            if measured.plain_threshold is not None:
                linked |= measured.plain[rows] @ measured.plain[columns].T >= measured.plain_threshold
            first, second = np.nonzero(np.triu(linked, 1) if top == left else linked)
            links = _checked(measured, first + top, second + left, whitened[first, second], least)
            found.append(links)
            total += len(links)
            if total > _MOST_LINKS:
                everything = _joined(found)
                least = float(np.median(everything.closeness))
                found = [everything.those(everything.closeness > least)]
                total = len(found[0])
    return _joined(found)


def _checked(
    measured: Measure,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    whitened: npt.NDArray[np.float32],
    least: float,
) -> _Links:
    """Return those of the pairs that are links: the plain product was only a bound."""
    closeness = (whitened - WHITENED) / (1 - WHITENED)
    closeness[whitened < measured.whitened_threshold] = -1
    if measured.plain_threshold is not None:
        plain = measured.correlations(first, second)
        by_plain = np.where(plain >= measured.plain_threshold, (plain - PLAIN) / (1 - PLAIN), -1)
        closeness = np.maximum(closeness, by_plain.astype(np.float32))
    links = _Links(
        np.column_stack([first, second]), np.minimum(closeness, 1).astype(np.float32), whitened >= COPY
    )
    return links.those(closeness >= least)


def _joined(found: Sequence[_Links]) -> _Links:
    return _Links(
        np.concatenate([links.pairs for links in found]),
        np.concatenate([links.closeness for links in found]),
        np.concatenate([links.copies for links in found]),
    )


def _no_links() -> _Links:
    return _Links(np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty(0, bool))
