"""What the coordinator should know of what sites share: where it gets worse, and where a version is not used.

A site gets worse where its ensemble's balanced accuracy is below what it was, by more than chance explains,
in both of its last two versions. What it was is the median of the five versions before those (or of as many
as there are). Chance is two standard errors of a difference of two shares of as many images as its validation
split has; the same images are in both, so that it is less, rather than more. Where the number is not told,
100 are assumed.
"""

import math
from statistics import median

from fedmedclip.aggregator.metrics_table import MetricsTable, Shared
from fedmedclip.aggregator.version_metrics import HasMetrics, kept, verdict_in_words

_COMPARED_VERSIONS = 5
_RUNNING = 2
_ASSUMED_IMAGES = 100
_STANDARD_ERRORS = 2.0
_NAMED_SITES = 10


def metric_warnings(store: HasMetrics) -> list[str]:
    """Return what the coordinator should know, a line each: the early end, the newest version, each site."""
    table = store.metrics
    end = table.early_end()
    ended = [] if end is None else [f"the run was ended at version {end.version}: {end.reason}"]
    return [*ended, *_not_activated(table), *worse_sites(table).values()]


def worse_sites(table: MetricsTable) -> dict[str, str]:
    """Return a sentence about each site that gets worse, by site."""
    return kept(table, "worse sites", (table.stamp, table.quarantined()), lambda: _worse_sites(table))


def _worse_sites(table: MetricsTable) -> dict[str, str]:
    by_site: dict[str, list[Shared]] = {}
    for version in table.versions():
        for site, shared in table.of_version(version).items():
            if shared.score is not None:
                by_site.setdefault(site, []).append(shared)
    found = {site: _worse(site, told) for site, told in sorted(by_site.items())}
    return {site: sentence for site, sentence in found.items() if sentence}


def worse_site(table: MetricsTable, site: str) -> str:
    """Return a sentence about a site that gets worse; empty where it does not."""
    if site in table.quarantined():
        return ""
    return _worse(site, [shared for shared in table.of_site(site) if shared.score is not None])


def _worse(site: str, told: list[Shared]) -> str:
    newest, before = told[-_RUNNING:], told[-_RUNNING - _COMPARED_VERSIONS : -_RUNNING]
    if not before:
        return ""
    usual = median(_score(shared) for shared in before)
    images = newest[-1].metrics.validation_images
    drop = largest_chance_drop(usual, images or _ASSUMED_IMAGES)
    if any(_score(shared) >= usual - drop for shared in newest):
        return ""
    first, last = newest
    return (
        f"{site} gets worse: balanced accuracy {_score(first):.3f} and {_score(last):.3f} with versions "
        f"{first.metrics.version} and {last.metrics.version}, {usual:.3f} before; {drop:.3f} less may be "
        f"chance with {'the' if images is None else images} images of its validation split"
    )


def _score(shared: Shared) -> float:
    return shared.score or 0.0


def largest_chance_drop(share: float, images: int) -> float:
    """Return by how much a share of so many images may fall by chance: two standard errors of a difference.

    As if 4 more images were there, of which 2 are right (Agresti and Coull 1998).
    """
    likely = (share * images + 2) / (images + 4)
    return _STANDARD_ERRORS * math.sqrt(2 * likely * (1 - likely) / images)


def not_activated(site: str, shared: Shared) -> str:
    """Return that a version does not answer at a site, for people; empty where it does or is not judged."""
    said = shared.metrics
    if said.active == said.version or verdict_in_words(said.verdict) == verdict_in_words(0):
        return ""
    answering = "no version of this run answers" if said.active is None else f"version {said.active} answers"
    return (
        f"version {said.version} is not activated at {site} ({verdict_in_words(said.verdict)}); {answering}"
    )


def _not_activated(table: MetricsTable) -> list[str]:
    versions = table.versions()
    if not versions:
        return []
    newest = table.of_version(versions[-1])
    sites = [site for site, shared in sorted(newest.items()) if not_activated(site, shared)]
    # That a few go on with what they have is what their guards are for.
    if 2 * len(sites) <= len(newest):
        return []
    if len(sites) == 1:
        return [not_activated(sites[0], newest[sites[0]])]
    named = ", ".join(sites[:_NAMED_SITES]) + (", ..." if len(sites) > _NAMED_SITES else "")
    return [f"version {versions[-1]} is not activated at {len(sites)} of {len(newest)} sites: {named}"]
