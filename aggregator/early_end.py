"""Whether a run goes nowhere any more: no version of the last few is better than the best before them."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.metrics_table import MetricsTable
from fedmedclip.aggregator.version_metrics import figures_of, scores_of


@dataclass(frozen=True)
class Patience:
    """After so many `versions` none of which is better than the best before them by `least`, a run is flat.

    Only versions count of which `minimum_sites` tell. No site has more than `maximum_share` of a mean.
    """

    versions: int
    least: float
    minimum_sites: int
    maximum_share: float


def why_flat(table: MetricsTable, patience: Patience, since: int) -> str:
    """Return why a run is flat, of its versions from `since` on, for people; empty where it is not.

    Two things have to be so. The mean has not risen: a site alone can feign that, by a figure that is high
    once and low after. And more than half of the sites that tell of both times say that nothing has risen
    for them: so no site ends a run alone where there are two or more.
    """
    scores = scores_of(table)
    needed = max(patience.minimum_sites, scores.needed)
    told = (~np.isnan(scores.values)).sum(axis=1)
    rows = [
        row for row, version in enumerate(scores.versions) if version >= since and told[row] >= max(1, needed)
    ]
    before, after = rows[: -patience.versions], rows[-patience.versions :]
    if not before:
        return ""
    means = {row: _mean(table, scores.versions[row], patience.maximum_share) for row in rows}
    # Of equal ones the first: since then nothing got better.
    best = max(before, key=lambda row: (means[row], -row))
    newest_best = max(means[row] for row in after)
    if newest_best >= means[best] + patience.least:
        return ""
    rises = _best(scores.values[after]) - _best(scores.values[before])
    flat, common = int((rises < patience.least).sum()), int((~np.isnan(rises)).sum())
    if 2 * flat <= common:
        return ""
    return (
        f"no version of the last {patience.versions} is better than version {scores.versions[best]} by "
        f"{patience.least:g}: balanced accuracy {means[best]:.3f} on average, at best {newest_best:.3f} "
        f"since; {flat} of {common} sites say that nothing got better for them"
    )


def _mean(table: MetricsTable, version: int, maximum_share: float) -> float:
    return figures_of(table, version, maximum_share).weighted_mean or 0.0


def _best(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the best of each site (column), NaN where it tells of none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found: npt.NDArray[np.float64] = np.nanmax(values, axis=0)
    return found
