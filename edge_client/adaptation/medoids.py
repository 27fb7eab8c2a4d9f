"""Which images to label first: those that the others lie closest to, k-medoids of their embeddings.

Greedy BUILD, then Voronoi iteration (Kaufman and Rousseeuw 1990; Park and Jun 2009). Nothing is drawn at
random, so equal images give equal choices. The other choice would be images that a head is least sure of;
with a handful of labels these are outliers, and do worse than chance.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

COMPARED = 4096
"""Images that are compared, all with all, at most."""
_ROUNDS = 50


def choose_medoids(
    points: Floats, number: int, groups: Integers, may_be_chosen: Booleans, labelled: Booleans
) -> Integers:
    """Return the rows int64 (at most `number`,) of `points` (N, D) that stand for the others best, sorted.

    Of images with equal numbers in `groups` (N,) one is chosen, a second only when every group has one; what
    is `labelled` (N,) counts as chosen before. Of more than `COMPARED` images that many count, evenly spread
    over the rows, and all that are labelled.
    """
    rows = _compared(labelled)
    distances, groups = _distances(points[rows]), groups[rows]
    fixed = np.flatnonzero(labelled[rows])
    free = may_be_chosen[rows] & ~labelled[rows]
    chosen = _settled(distances, _build(distances, number, groups, free, fixed, repeated=True), free, fixed)
    _, firsts = np.unique(groups[chosen], return_index=True)
    kept = [chosen[place] for place in np.sort(firsts) if groups[chosen[place]] not in groups[fixed]]
    for repeated in (False, True):
        missing = number - len(kept)
        kept += _build(distances, missing, groups, free, np.append(fixed, kept), repeated=repeated)
    found: Integers = np.sort(rows[kept])
    return found


def _compared(labelled: Booleans) -> Integers:
    count = len(labelled)
    if count <= COMPARED:
        return np.arange(count, dtype=np.int64)
    spread = np.linspace(0, count - 1, COMPARED).astype(np.int64)
    found: Integers = np.union1d(spread, np.flatnonzero(labelled))
    return found


def _distances(points: Floats) -> Floats:
    squares = (points**2).sum(axis=1)
    squared = squares[:, None] + squares - 2 * (points @ points.T)
    distances: Floats = np.sqrt(np.maximum(squared, 0))
    np.fill_diagonal(distances, 0)
    return distances


def _build(
    distances: Floats,
    number: int,
    groups: Integers,
    free: Booleans,
    before: npt.NDArray[np.integer],
    *,
    repeated: bool,
) -> list[int]:
    """Add to what was chosen `before` the image that brings all others nearest to one, again and again.

    Unless `repeated`, none is added of a group that has one.
    """
    before = before.astype(np.int64)
    far = 2 * distances.max(initial=0) + 1
    nearest = np.append(distances[:, before], np.full((len(distances), 1), far), axis=1).min(axis=1)
    free = free & ~np.isin(np.arange(len(free)), before)
    if not repeated:
        free &= ~np.isin(groups, groups[before])
    chosen: list[int] = []
    while len(chosen) < number and free.any():
        gains = np.maximum(nearest[:, None] - distances, 0).sum(axis=0)
        best = int(np.where(free, gains, -1).argmax())
        chosen.append(best)
        nearest = np.minimum(nearest, distances[:, best])
        free[best] = False
        if not repeated:
            free &= groups != groups[best]
    return chosen


def _settled(distances: Floats, chosen: list[int], free: Booleans, fixed: Integers) -> list[int]:
    """Move each chosen image to the middle of those that lie nearest to it, until none moves."""
    for _ in range(_ROUNDS):
        medoids = np.append(fixed, chosen).astype(np.int64)
        owner = distances[:, medoids].argmin(axis=1) - len(fixed)
        moved = []
        for place, medoid in enumerate(chosen):
            members = np.flatnonzero(owner == place)
            candidates = members[free[members]]
            lengths = distances[np.ix_(members, candidates)].sum(axis=0)
            moved.append(int(candidates[lengths.argmin()]) if len(candidates) else medoid)
        if moved == chosen:
            break
        chosen = moved
    return chosen
