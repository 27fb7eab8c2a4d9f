"""Shares with intervals: patients are drawn again, not images, for a patient's images fail together."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_DRAWS = 1000
_SEED = 0


@dataclass
class Share:
    """A mean over images that come in groups; the same image may come again, at another site or seed."""

    sums: dict[int, float] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, values: npt.NDArray[np.generic], groups: npt.NDArray[np.int64]) -> None:
        """Add values (N,) of images of groups (N,)."""
        for value, group in zip(values.astype(float).tolist(), groups.tolist(), strict=True):
            self.sums[group] = self.sums.get(group, 0.0) + value
            self.counts[group] = self.counts.get(group, 0) + 1

    @property
    def mean(self) -> float:
        """The mean over all images; nan of none."""
        total = sum(self.counts.values())
        return sum(self.sums.values()) / total if total else float("nan")

    def interval(self) -> tuple[float, float]:
        """Return the 2.5th and 97.5th percentile of the mean over groups drawn with replacement."""
        if not self.sums:
            return float("nan"), float("nan")
        sums, counts = (
            np.array(list(self.sums.values())),
            np.array([self.counts[group] for group in self.sums]),
        )
        drawn = np.random.default_rng(_SEED).integers(0, len(sums), (_DRAWS, len(sums)))
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        return float(low), float(high)

    def as_dict(self) -> dict[str, float]:
        """Return mean and interval, rounded."""
        low, high = self.interval()
        return {"mean": round(self.mean, 4), "low": round(low, 4), "high": round(high, 4)}
