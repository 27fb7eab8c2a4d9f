"""How good each version is over all sites that say so: mean, worst site, and which is the best.

No member is trusted with more than its share. Weights are capped as those of updates are. Of the versions,
the best is the one with the highest mean that no other beats at most sites: so a site whose figures rise and
fall by its own word alone, true or not, chooses nothing where there are three or more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.metrics_table import MetricsTable, Shared
from fedmedclip.aggregator.weights import weights_of
from fedmedclip.protocol.messages import STEPS_OF_A_SHARE, STEPS_OF_LOG_LOSS, VERDICTS, Figures

USUAL_SHARE = 0.5
_STEP = 1.0 / STEPS_OF_A_SHARE
_95_PER_CENT = 1.959964

Computed = TypeVar("Computed")


class HasMetrics(Protocol):
    """A store."""

    @property
    def metrics(self) -> MetricsTable: ...


class ClassifierFigures(msgspec.Struct, frozen=True):
    """What a site says of a classifier on its validation split, within half a step of half a per cent.

    Intervals are of 95 % (Wilson 1927), None where the number of images is not told; that of the balanced
    accuracy is as if all classes had as many images.
    """

    accuracy: float
    balanced_accuracy: float
    calibration_error: float
    log_loss: float
    accuracy_interval: tuple[float, float] | None = None
    balanced_accuracy_interval: tuple[float, float] | None = None


class SiteMetrics(msgspec.Struct, frozen=True):
    """What a site shares of a version.

    `active` is the version of this run that answers there, None where none of it does; `verdict` what became
    of `version`. Numbers of images are None where they are few, or not told. `received_at` is in seconds
    since 1970.
    """

    site: str
    version: int
    active: int | None
    verdict: str
    train_images: int | None
    validation_images: int | None
    test_images: int | None
    classifiers: dict[str, ClassifierFigures]
    software: str
    received_at: float


class VersionFigures(msgspec.Struct, frozen=True):
    """How good a version is, by the balanced accuracy of each site's ensemble.

    `sites` tell theirs. `weighted_mean` is by their validation images where they are told, else all count
    alike; no site has more than the largest share of it that an update may have. `interval` is of 95 %, from
    what chance leaves open at each site, None where a number of images is not told. `activated` counts the
    sites where the version answers, of all that share something of it.
    """

    version: int
    sites: int
    weighted_mean: float | None
    worst_site: str | None
    worst: float | None
    best: bool = False
    interval: tuple[float, float] | None = None
    worst_interval: tuple[float, float] | None = None
    activated: int = 0
    sharing: int = 0


def version_figures(store: HasMetrics, maximum_share: float = USUAL_SHARE) -> list[VersionFigures]:
    """Return the figures of each version of the run of which any are known, in order."""
    table, best = store.metrics, best_version(store, maximum_share)
    return [
        msgspec.structs.replace(figures_of(table, version, maximum_share), best=version == best)
        for version in table.versions()
    ]


def site_metrics(store: HasMetrics, version: int | None = None) -> dict[str, SiteMetrics]:
    """Return what each site shares of a version; None: of the newest of which it shares anything."""
    table, newest = store.metrics, dict[str, Shared]()
    for known in table.versions() if version is None else [version]:
        newest |= table.of_version(known)
    return {site: _site_metrics(site, shared) for site, shared in sorted(newest.items())}


def _site_metrics(site: str, shared: Shared) -> SiteMetrics:
    said = shared.metrics
    images = said.validation_images
    told = {name: getattr(said, name) for name in ("zero_shot", "shared", "private", "ensemble")}
    return SiteMetrics(
        site,
        said.version,
        said.active,
        verdict_in_words(said.verdict),
        said.train_images,
        images,
        said.test_images,
        {name: _classifier(figures, images) for name, figures in told.items() if figures is not None},
        said.software,
        shared.received_at,
    )


def verdict_in_words(verdict: int) -> str:
    """Return what became of a version, by its number; one of a later release counts as not judged."""
    return VERDICTS[verdict] if verdict < len(VERDICTS) else VERDICTS[0]


def _classifier(figures: Figures, images: int | None) -> ClassifierFigures:
    accuracy, balanced, calibration = (
        steps / STEPS_OF_A_SHARE
        for steps in (figures.accuracy, figures.balanced_accuracy, figures.calibration_error)
    )
    interval = partial(wilson, images=images)
    loss = figures.log_loss / STEPS_OF_LOG_LOSS
    return ClassifierFigures(accuracy, balanced, calibration, loss, interval(accuracy), interval(balanced))


def wilson(share: float, images: int | None) -> tuple[float, float] | None:
    """Return the 95 % interval of a share of so many images (Wilson 1927); None where these are not told."""
    if not images:
        return None
    square = _95_PER_CENT**2
    centre = (share + square / (2 * images)) / (1 + square / images)
    spread = share * (1 - share) / images + square / (4 * images**2)
    half = _95_PER_CENT / (1 + square / images) * math.sqrt(spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def figures_of(table: MetricsTable, version: int, maximum_share: float) -> VersionFigures:
    """Return the figures of a version, without which is the best; what was computed once is kept."""
    state = (table.stamps.get(version, 0), table.quarantined(), maximum_share)
    shared = partial(table.of_version, version)
    return kept(table, ("figures", version), state, lambda: _figures_of(shared(), version, maximum_share))


def kept(table: MetricsTable, what: object, state: object, compute: Callable[[], Computed]) -> Computed:
    """Return what was computed once, for as long as the state of things that it was computed from holds."""
    known = table.computed.get(what)
    if known is None or known[0] != state:
        known = table.computed[what] = (state, compute())
    found: Computed = known[1]
    return found


def _figures_of(shared: dict[str, Shared], version: int, maximum_share: float) -> VersionFigures:
    activated = sum(found.metrics.active == version for found in shared.values())
    scores = {site: score for site, found in shared.items() if (score := found.score) is not None}
    if not scores:
        return VersionFigures(version, 0, None, None, None, activated=activated, sharing=len(shared))
    images = {site: shared[site].metrics.validation_images for site in scores}
    told = [weight for site in scores if (weight := shared[site].weight) is not None]
    # Who tells no number weighs as the least of those who do.
    least = min(told, default=1)
    weights = weights_of({site: shared[site].weight or least for site in scores}, "samples", maximum_share)
    whole = sum(weights.values())
    mean = sum(weights[site] * score for site, score in scores.items()) / whole
    worst = min(scores, key=lambda site: (scores[site], site))
    return VersionFigures(
        version,
        len(scores),
        mean,
        worst,
        scores[worst],
        interval=_interval_of_mean(mean, scores, weights, images),
        worst_interval=wilson(scores[worst], images[worst]),
        activated=activated,
        sharing=len(shared),
    )


def _interval_of_mean(
    mean: float, scores: dict[str, float], weights: dict[str, float], images: dict[str, int | None]
) -> tuple[float, float] | None:
    variance, whole = 0.0, sum(weights.values())
    for site, score in scores.items():
        count = images[site]
        if count is None:
            return None
        # Agresti and Coull (1998): a score of 0 or 1 is not certain either.
        likely = (score * count + 2) / (count + 4)
        variance += (weights[site] / whole) ** 2 * likely * (1 - likely) / count
    half = _95_PER_CENT * math.sqrt(variance)
    return max(0.0, mean - half), min(1.0, mean + half)


@dataclass(frozen=True)
class Scores:
    """The scores of versions (rows, in order) at sites (columns, sorted); NaN where none is told."""

    versions: list[int]
    sites: tuple[str, ...]
    values: npt.NDArray[np.float64]

    @property
    def needed(self) -> int:
        """How many sites have to tell of a version before it is compared: half, and one is not enough."""
        return max(math.ceil(len(self.sites) / 2), min(2, len(self.sites)))


def scores_of(table: MetricsTable) -> Scores:
    """Return the scores of all versions and sites of which any are known."""
    quarantined = table.quarantined()
    return kept(table, "scores", (table.stamp, quarantined), lambda: _scores_of(table, quarantined))


def _scores_of(table: MetricsTable, quarantined: frozenset[str]) -> Scores:
    versions = table.versions()
    # A message changes one row: the others are as they were.
    states = [(table.stamps.get(version, 0), quarantined) for version in versions]
    told = [
        kept(table, ("told", version), state, partial(_told, table, version))
        for version, state in zip(versions, states, strict=True)
    ]
    sites = tuple(sorted(set[str]().union(*told)))
    rows = [
        kept(table, ("row", version), (*state, sites), partial(_row, scores, sites))
        for version, state, scores in zip(versions, states, told, strict=True)
    ]
    return Scores(versions, sites, np.stack(rows) if rows else np.empty((0, 0)))


def _told(table: MetricsTable, version: int) -> dict[str, float]:
    shared = table.of_version(version).items()
    return {site: score for site, found in shared if (score := found.score) is not None}


def _row(scores: dict[str, float], sites: tuple[str, ...]) -> npt.NDArray[np.float64]:
    return np.array([scores.get(site, math.nan) for site in sites])


def best_version(store: HasMetrics, maximum_share: float = USUAL_SHARE) -> int | None:
    """Return the best version whose head can still be had; None where too few sites tell how good it is.

    Of the versions of which half of the sites tell, and two where there are two, it is the one with the
    highest mean that no other beats: that is better, by more than figures are rounded, at more than half of
    the sites that tell of both. Where each is beaten, the mean alone counts. Of equals it is the newest.
    """
    table = store.metrics
    state = (table.stamp, table.quarantined(), table.heads_state(), maximum_share)
    return kept(table, "best", state, lambda: _best_version(table, maximum_share))


def _best_version(table: MetricsTable, maximum_share: float) -> int | None:
    scores = scores_of(table)
    told = ~np.isnan(scores.values)
    rows = [
        row
        for row, version in enumerate(scores.versions)
        if told[row].sum() >= max(1, scores.needed) and table.has_head(version)
    ]
    if not rows:
        return None

    def by_mean(row: int) -> tuple[float, int]:
        version = scores.versions[row]
        return figures_of(table, version, maximum_share).weighted_mean or 0.0, version

    ranked = sorted(rows, key=by_mean, reverse=True)
    candidates = scores.values[rows]
    for row in ranked:
        both = ~np.isnan(candidates) & told[row]
        better = (candidates > scores.values[row] + _STEP / 2) & both
        if not (2 * better.sum(axis=1) > both.sum(axis=1)).any():
            return scores.versions[row]
    return scores.versions[ranked[0]]
