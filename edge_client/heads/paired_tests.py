"""Paired tests of two classifiers on the same images. Groups are the unit, not images.

Slices of one patient, and look-alikes, are right and wrong together, so a group counts once. If neither
classifier is better, each group's gain could as well have had the other sign: a test asks how many of all
signings are as far out as what was found.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
_CHUNK = 500


def gains_by_group(gains: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """Return the sum of the images' gains (N,) for each of the G groups (N,) that occur, float64 (G,)."""
    _, group = np.unique(groups, return_inverse=True)
    sums: Floats = np.bincount(group, weights=gains).astype(np.float64)
    return sums


def clustered_mcnemar(gains: Floats) -> float:
    """Return the two-sided p-value of McNemar's test for pairs in groups, exactly.

    `gains` (G,) are whole numbers: how often a group's images were right with the one method and wrong with
    the other, less how often it was the other way round. p is the share of all 2^G signings whose sum is at
    least as far from 0. With groups of one image and one seed that is McNemar's exact test (McNemar 1947);
    its square's normal approximation is the test for clustered matched pairs (Durkalski et al. 2003,
    "Analysis of clustered matched-pair data").
    """
    values, chances = _signed_sums(gains)
    return min(1.0, float(chances[np.abs(values) >= abs(_whole_sum(gains))].sum()))


def exact_chance_of_loss(gains: Floats) -> float:
    """Return the one-sided p-value of `clustered_mcnemar`: the share of signings whose sum is no higher."""
    values, chances = _signed_sums(gains)
    return min(1.0, float(chances[values <= _whole_sum(gains)].sum()))


def random_sign_flips(gains: Floats, seed: int) -> float:
    """Return the two-sided p-value of `clustered_mcnemar` for gains (G,) that are no whole numbers.

    `RESAMPLES` random signings stand for all; the data's own counts as one of them (Phipson and Smyth 2010).
    """
    distance = abs(float(gains.sum())) * (1 - 1e-9)
    far = sum(int((np.abs(sums) >= distance).sum()) for sums in _random_sums(gains, seed))
    return (far + 1) / (RESAMPLES + 1)


def random_chance_of_loss(gains: Floats, seed: int) -> float:
    """Return the one-sided p-value of `random_sign_flips`: the share of signings whose sum is no higher."""
    found = float(gains.sum())
    limit = found + abs(found) * 1e-9
    far = sum(int((sums <= limit).sum()) for sums in _random_sums(gains, seed))
    return (far + 1) / (RESAMPLES + 1)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return p-values by Holm's step-down procedure (Holm 1979), in the order in which they were given.

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on; none falls below one before
    it, none exceeds 1. That bounds the chance of any false finding among them.
    """
    adjusted = [0.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = least
    return adjusted


def _whole_sum(gains: Floats) -> int:
    return int(np.rint(gains.sum()))


def _signed_sums(gains: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return the sums that signings of whole gains (G,) can have, and the share of signings of each."""
    sizes = np.abs(np.rint(gains)).astype(np.int64)
    sizes = sizes[sizes > 0]
    total = int(sizes.sum())
    # Place `total + s` holds the probability of the sum s.
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes:
        moved = np.zeros_like(chances)
        moved[size:] += chances[:-size] / 2
        moved[:-size] += chances[size:] / 2
        chances = moved
    return np.arange(-total, total + 1), chances


def _random_sums(gains: Floats, seed: int) -> list[Floats]:
    changed = gains[gains != 0]
    draw = np.random.Generator(np.random.Philox(key=[seed, 1]))
    sums = []
    for start in range(0, RESAMPLES, _CHUNK):
        signs = draw.integers(0, 2, size=(min(_CHUNK, RESAMPLES - start), len(changed))) * 2 - 1
        sums.append(signs @ changed)
    return sums
