"""Means of what comes one by one, which can be merged: as exact after a million images as after ten."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


class RunningMean(msgspec.Struct):
    """The mean of `count` vectors, all of one length.

    Kept as a mean and not as a sum, after Welford (1962) and Chan, Golub and LeVeque (1983): a sum grows, and
    what is added to it loses digits.
    """

    count: int = 0
    mean: list[float] = []

    def add(self, vector: Sequence[float] | Vector) -> None:
        """Take one vector in. Raises ValueError where its length differs."""
        values = np.asarray(vector, np.float64)
        self.count += 1
        if self.count == 1:
            self.mean = values.tolist()
            return
        mine = self.vector()
        self.mean = (mine + (values - mine) / self.count).tolist()

    def merge(self, other: "RunningMean") -> None:
        """Take in all that another mean is of. Raises ValueError where the lengths differ."""
        if other.count == 0:
            return
        if self.count == 0:
            self.count, self.mean = other.count, list(other.mean)
            return
        mine, theirs = self.vector(), other.vector()
        self.count += other.count
        self.mean = (mine + (theirs - mine) * (other.count / self.count)).tolist()

    def vector(self) -> Vector:
        """Return the mean, float64 (length,)."""
        return np.array(self.mean, np.float64)
