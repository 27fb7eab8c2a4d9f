"""From finished rounds to rows: accuracies, bytes and seconds."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.whole_encoder.federation import VALIDATION, Round
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

Sites = Mapping[int, Sequence[VirtualSite]]


class Accuracies(msgspec.Struct, frozen=True):
    """What a round's shared model is worth, from 0 to 1.

    `sites` and `balanced` (each class counting alike) are means over the sites' test images, each site
    counting alike; `validation` is that mean over their validation images, None where it was not measured.
    """

    round: int
    sites: float
    balanced: float
    of_sites: dict[str, float]
    validation: float | None
    global_test: float | None


class Row(msgspec.Struct, frozen=True):
    """A method with a seed: its last round, the one that was best on the sites' validation images (None
    where that is not known), and all rounds that were kept.

    `wall_seconds` and `processor_seconds` are of a round's training at a site, the mean over rounds and
    sites.
    """

    method: str
    seed: int
    last: Accuracies
    best: Accuracies | None
    rounds: list[Accuracies]
    uplink_bytes: int
    downlink_bytes: int
    smaller: dict[str, int]
    wall_seconds: float
    processor_seconds: float


class Figure(msgspec.Struct, frozen=True):
    """Mean and standard deviation over seeds; with one seed there is no deviation."""

    mean: float
    deviation: float | None

    def __str__(self) -> str:
        deviation = "" if self.deviation is None else f" ± {100 * self.deviation:.1f}"
        return f"{100 * self.mean:.1f}{deviation}"


def row_of(rounds: Sequence[Round], sites: Sequence[VirtualSite], pool: FeaturePool) -> Row:
    """Return the row of one run's rounds, in the order of their numbers."""
    accuracies = [_accuracies(one, sites, pool) for one in rounds]
    known = [one for one in accuracies if one.validation is not None]
    times = [time for one in rounds for time in one.times.values()]
    last = rounds[-1]
    return Row(
        last.method,
        last.seed,
        accuracies[-1],
        # The earliest of equals.
        max(known, key=lambda one: one.validation or 0.0) if known else None,
        accuracies,
        last.uplink_bytes,
        last.downlink_bytes,
        last.smaller,
        round(fmean([time.wall for time in times]), 4) if times else 0.0,
        round(fmean([time.processor for time in times]), 4) if times else 0.0,
    )


def figure(values: Sequence[float]) -> Figure:
    """Return mean and sample standard deviation."""
    return Figure(fmean(values), stdev(values) if len(values) > 1 else None)


def _accuracies(one: Round, sites: Sequence[VirtualSite], pool: FeaturePool) -> Accuracies:
    tested = [(site.name, pool.labels[site.test]) for site in sites if len(site.test)]
    validated = [
        (part, pool.labels[site.validation])
        for site in sites
        if len(site.validation) and (part := f"{site.name}/{VALIDATION}") in one.predictions
    ]
    return Accuracies(
        one.number,
        _mean([_accuracy(one, part, labels) for part, labels in tested]),
        _mean([_balanced(one, part, labels) for part, labels in tested]),
        {part: round(_accuracy(one, part, labels), 6) for part, labels in tested},
        _mean([_accuracy(one, part, labels) for part, labels in validated]) if validated else None,
        None if pool.global_test is None else round(_accuracy(one, GLOBAL_TEST, pool.global_test.labels), 6),
    )


def classes_of(one: Round, part: str) -> npt.NDArray[np.uint8]:
    """Return what the round's model says of each image of a part."""
    return np.frombuffer(one.predictions[part], dtype=np.uint8)


def _accuracy(one: Round, part: str, labels: npt.NDArray[np.int64]) -> float:
    return float(np.mean(classes_of(one, part) == labels))


def _balanced(one: Round, part: str, labels: npt.NDArray[np.int64]) -> float:
    right = classes_of(one, part) == labels
    return fmean(float(right[labels == label].mean()) for label in np.unique(labels))


def _mean(values: Sequence[float]) -> float:
    return round(fmean(values), 6)
