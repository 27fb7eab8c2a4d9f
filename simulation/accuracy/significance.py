"""Is one method better than another on the same images, or is it luck? Groups are the unit, not images.

Slices of one patient, and look-alikes, are right and wrong together; and every seed deals the groups out
anew, so that an image may be tested under several seeds. A group therefore counts once, with all of its
predictions under all seeds, in the test as in the bootstrap.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.paired_tests import (
    RESAMPLES,
    clustered_mcnemar,
    holm_adjusted,
    random_sign_flips,
)

Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
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
    """Return the comparisons with `p_corrected` by Holm's procedure (`holm_adjusted`)."""
    corrected = holm_adjusted([comparison.p for comparison in comparisons.values()])
    return {
        name: msgspec.structs.replace(comparison, p_corrected=p)
        for (name, comparison), p in zip(comparisons.items(), corrected, strict=True)
    }


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
