"""Is one method better than another on the same images, or is it luck? Groups are the unit, not images.

Slices of one patient, and look-alikes, are right and wrong together; and every seed deals the groups out
anew, so that an image may be tested under several seeds. A group therefore counts once, with all of its
predictions under all seeds, in the test as in the bootstrap.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_CHUNK = 500


class Comparison(msgspec.Struct, frozen=True):
    """A method against the reference on the same predictions.

    `difference` is its accuracy (or balanced accuracy) less the reference's, `low` and `high` its bootstrap
    interval. `better` and `worse` count the groups on which it is right more and less often. `p` is of the
    paired test, `p_corrected` after Holm's correction over all methods on these images.
    """

    difference: float
    low: float
    high: float
    better: int
    worse: int
    groups: int
    p: float
    p_corrected: float = 1.0

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        # Not 1 - CONFIDENCE itself, which is a little above 0.05.
        return self.p_corrected < round(1 - CONFIDENCE, 9)


def compare(correct: Booleans, reference: Booleans, groups: Integers, seed: int) -> Comparison:
    """Compare the accuracy of predictions (N,), right or wrong, on images of these groups (N,).

    Equal numbers are one group; an image that several seeds test occurs as often. `seed` is the bootstrap's.
    """
    gains, counts = _by_group(correct, reference, groups, np.zeros(len(groups), dtype=np.int64))
    low, high = paired_bootstrap(gains, counts, seed)
    gained = gains[:, 0]
    return Comparison(
        float(gained.sum() / counts.sum()), low, high, *_sides(gained), len(gained), clustered_mcnemar(gained)
    )


def compare_balanced(
    correct: Booleans, reference: Booleans, groups: Integers, labels: Integers, seed: int
) -> Comparison:
    """Compare the balanced accuracy, each class counting alike, as `compare` does; `labels` (N,)."""
    gains, counts = _by_group(correct, reference, groups, labels)
    low, high = paired_bootstrap(gains, counts, seed)
    weighted = (gains / counts.sum(axis=0)).mean(axis=1)
    p = random_sign_flips(weighted, seed)
    return Comparison(float(weighted.sum()), low, high, *_sides(weighted), len(weighted), p)


def clustered_mcnemar(gains: Floats) -> float:
    """Return the two-sided p-value of McNemar's test for pairs in groups, exactly.

    `gains` (G,) are whole numbers: how often a group's images were right with the one method and wrong with
    the other, less how often it was the other way round. If neither is better, each group's gain could as
    well have had the other sign: p is the share of all 2^G signings whose sum is at least as far from 0. With
    groups of one image and one seed that is McNemar's exact test (McNemar 1947); its square's normal
    approximation is the test for clustered matched pairs (Durkalski et al. 2003, "Analysis of clustered
    matched-pair data").
    """
    sizes = np.abs(np.rint(gains)).astype(np.int64)
    sizes = sizes[sizes > 0]
    total = int(sizes.sum())
    # Place `total + s` holds the probability of the sum s.
    sums = np.zeros(2 * total + 1)
    sums[total] = 1.0
    for size in sizes:
        moved = np.zeros_like(sums)
        moved[size:] += sums[:-size] / 2
        moved[:-size] += sums[size:] / 2
        sums = moved
    distance = abs(int(np.rint(gains.sum())))
    far = np.abs(np.arange(-total, total + 1)) >= distance
    return min(1.0, float(sums[far].sum()))


def random_sign_flips(gains: Floats, seed: int) -> float:
    """Return the two-sided p-value of `clustered_mcnemar` for gains (G,) that are no whole numbers.

    `RESAMPLES` random signings stand for all; the data's own counts as one of them (Phipson and Smyth 2010).
    """
    changed = gains[gains != 0]
    distance = abs(float(changed.sum())) * (1 - 1e-9)
    draw = np.random.Generator(np.random.Philox(key=[seed, 1]))
    far = 0
    for start in range(0, RESAMPLES, _CHUNK):
        signs = draw.integers(0, 2, size=(min(_CHUNK, RESAMPLES - start), len(changed))) * 2 - 1
        far += int((np.abs(signs @ changed) >= distance).sum())
    return (far + 1) / (RESAMPLES + 1)


def paired_bootstrap(gains: Floats, counts: Floats, seed: int) -> tuple[float, float]:
    """Return the percentile interval of the mean gain over resamples of the groups, classes counting alike.

    `gains` (G, K) are the differences summed over a group's predictions of each class, `counts` (G, K) how
    many those are. A class that a resample lacks is left out of its mean.
    """
    draw = np.random.Generator(np.random.Philox(seed))
    shares = np.full(len(gains), 1 / len(gains))
    means = []
    for start in range(0, RESAMPLES, _CHUNK):
        times = draw.multinomial(len(gains), shares, size=min(_CHUNK, RESAMPLES - start))
        drawn = times @ counts
        ratios = np.divide(times @ gains, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
        means.append(np.nanmean(ratios, axis=1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def holm(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Return the comparisons with `p_corrected` by Holm's step-down procedure (Holm 1979).

    The smallest of m p-values is multiplied by m, the next by m - 1, and so on; none falls below one before
    it, none exceeds 1. That bounds the chance of any false finding among them.
    """
    corrected: dict[str, Comparison] = {}
    least = 0.0
    ascending = sorted(comparisons.items(), key=lambda item: item[1].p)
    for rank, (name, comparison) in enumerate(ascending):
        least = max(least, min(1.0, comparison.p * (len(comparisons) - rank)))
        corrected[name] = msgspec.structs.replace(comparison, p_corrected=least)
    return {name: corrected[name] for name in comparisons}


def _by_group(
    correct: Booleans, reference: Booleans, groups: Integers, classes: Integers
) -> tuple[Floats, Floats]:
    """Return gains and numbers of predictions, (G, K) each, for the K classes that occur."""
    _, group = np.unique(groups, return_inverse=True)
    _, column = np.unique(classes, return_inverse=True)
    shape = int(group.max()) + 1, int(column.max()) + 1
    gains, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(gains, (group, column), correct.astype(np.float64) - reference.astype(np.float64))
    np.add.at(counts, (group, column), 1.0)
    return gains, counts


def _sides(gains: Floats) -> tuple[int, int]:
    return int((gains > 0).sum()), int((gains < 0).sum())
