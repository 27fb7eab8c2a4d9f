"""Is one method better than another on the same images, or is it luck? Images are the unit, not predictions.

Every seed deals the images out anew, so an image may be tested under several seeds, and under none of them
are its predictions independent of those under another. Each image therefore counts once in the exact test,
and is drawn with all of its predictions in the bootstrap.
"""

from collections.abc import Mapping

import msgspec
import numpy as np
import numpy.typing as npt

Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_CHUNK = 500


class Comparison(msgspec.Struct, frozen=True):
    """A method against the reference on the same predictions.

    `difference` is its accuracy less the reference's, `low` and `high` its bootstrap interval. `better` and
    `worse` count the images on which it is right more and less often. `p` is of the exact test,
    `p_corrected` after Holm's correction over all methods on these images.
    """

    difference: float
    low: float
    high: float
    better: int
    worse: int
    images: int
    p: float
    p_corrected: float = 1.0

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        # Not 1 - CONFIDENCE itself, which is a little above 0.05.
        return self.p_corrected < round(1 - CONFIDENCE, 9)


def compare(correct: Booleans, reference: Booleans, images: Integers, seed: int) -> Comparison:
    """Compare predictions (N,), right or wrong, of the images (N,) with those numbers.

    The numbers may repeat: once for each seed that tests the image. `seed` is the bootstrap's.
    """
    _, group = np.unique(images, return_inverse=True)
    gained = correct.astype(np.float64) - reference.astype(np.float64)
    gains = np.bincount(group, weights=gained).astype(np.float64)
    counts = np.bincount(group).astype(np.float64)
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    low, high = paired_bootstrap(gains, counts, seed)
    difference = float(gains.sum() / counts.sum())
    return Comparison(difference, low, high, better, worse, len(counts), mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947).

    Of the images on which two methods differ, each is as likely to be the right one: a binomial test of
    `better` against `worse` with probability 1/2. With one seed that is the usual test. With several an image
    counts for the method that is right more often, and not at all in a tie: a sign test over images.
    """
    if better + worse == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(better, better + worse, 0.5).pvalue)


def paired_bootstrap(
    gains: npt.NDArray[np.float64], counts: npt.NDArray[np.float64], seed: int
) -> tuple[float, float]:
    """Return the percentile interval of sum(gains) / sum(counts) over resamples of the images.

    `gains` (M,) are the differences summed over an image's predictions, `counts` (M,) how many those are.
    """
    draw = np.random.Generator(np.random.Philox(seed))
    shares = np.full(len(gains), 1 / len(gains))
    ratios = []
    for start in range(0, RESAMPLES, _CHUNK):
        times = draw.multinomial(len(gains), shares, size=min(_CHUNK, RESAMPLES - start))
        ratios.append((times @ gains) / (times @ counts))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
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
