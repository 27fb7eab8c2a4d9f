"""The mean of paired differences, and how sure it is."""

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

import msgspec

# Student's t for a two-sided interval of 95 %, by degrees of freedom from 1 on; beyond, the last serves.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """One accuracy less another (0 to 1): mean and standard deviation over what was paired, such as seeds.

    `low` and `high` bound the mean with 95 % confidence (Student's t); None with one pair.
    """

    mean: float
    std: float
    low: float | None = None
    high: float | None = None

    def in_points(self) -> str:
        """Return it in percentage points, as a table shows it."""
        if self.low is None or self.high is None:
            return f"{100 * self.mean:+.2f}"
        return f"{100 * self.mean:+.2f} ± {50 * (self.high - self.low):.2f}"


def mean_difference(differences: Sequence[float]) -> Difference:
    """Return the mean of differences that are independent of each other, with its interval."""
    mean, count = fmean(differences), len(differences)
    if count < 2:
        return Difference(mean, 0.0)
    spread = stdev(differences)
    half = _STUDENT[min(count - 1, len(_STUDENT)) - 1] * spread / sqrt(count)
    return Difference(mean, spread, mean - half, mean + half)
