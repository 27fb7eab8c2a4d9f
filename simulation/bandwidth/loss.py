"""What a codec costs in accuracy against sending everything, and how sure that is."""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev

import msgspec

from fedmedclip.simulation.bandwidth.results import UNCOMPRESSED, final_accuracy, final_accuracy_global
from fedmedclip.simulation.bandwidth.runs import Run

# Student's t for a two-sided interval of 95 %, by degrees of freedom from 1 on; beyond, the last serves.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)


class Difference(msgspec.Struct, frozen=True, omit_defaults=True):
    """Accuracy less the uncompressed one's (0 to 1): mean and standard deviation over the seeds.

    `low` and `high` bound the mean with 95 % confidence (Student's t over the seeds); None with one seed.
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


def difference_to_uncompressed(runs: Mapping[str, Sequence[Run]]) -> dict[str, Difference]:
    """Return each codec's difference to the uncompressed runs of the same seeds; empty without these.

    Seeds differ in splits and first heads, which move all codecs together: this difference is much surer than
    the accuracies themselves.
    """
    return _differences(runs, final_accuracy)


def global_difference_to_uncompressed(runs: Mapping[str, Sequence[Run]]) -> dict[str, Difference]:
    """Return the same on the global test; empty when there is none."""
    return _differences(runs, final_accuracy_global)


def mean_difference(differences: Sequence[float]) -> Difference:
    """Return the mean of differences that are independent of each other, with its interval."""
    mean, count = fmean(differences), len(differences)
    if count < 2:
        return Difference(mean, 0.0)
    spread = stdev(differences)
    half = _STUDENT[min(count - 1, len(_STUDENT)) - 1] * spread / sqrt(count)
    return Difference(mean, spread, mean - half, mean + half)


def _differences(
    runs: Mapping[str, Sequence[Run]], accuracy_of: Callable[[Run], float | None]
) -> dict[str, Difference]:
    reference = {run.seed: accuracy_of(run) for run in runs.get(UNCOMPRESSED, ())}
    found: dict[str, Difference] = {}
    for codec, of_seeds in runs.items():
        pairs = [(accuracy_of(run), reference.get(run.seed)) for run in of_seeds]
        differences = [own - other for own, other in pairs if own is not None and other is not None]
        if differences:
            found[codec] = mean_difference(differences)
    return found
