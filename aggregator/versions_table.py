"""`fedmedclip control versions`: how good each version is, as its sites share it."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.metric_warnings import metric_warnings
from fedmedclip.aggregator.opened_store import database_of, opened_store
from fedmedclip.aggregator.version_metrics import SiteMetrics, VersionFigures, site_metrics, version_figures
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.visible import visible


class SharedFigures(msgspec.Struct, frozen=True):
    """What is known of the versions of a run: of each, of its newest at each site, and what to look at."""

    versions: list[VersionFigures]
    sites: dict[str, SiteMetrics]
    warnings: list[str]


def read_figures(configuration_file: Path) -> SharedFigures:
    """Return what is known of the versions of an aggregator's run, whether it runs or not.

    Raises InvalidInputError where there is no state.
    """
    settings = read_configuration(configuration_file, AggregatorConfiguration).federation
    with opened_store(database_of(configuration_file)) as store:
        figures = version_figures(store, settings.maximum_share)
        return SharedFigures(figures, site_metrics(store), metric_warnings(store))


def print_figures(figures: SharedFigures) -> None:
    """Print the versions, what each site says of its newest, and what to look at."""
    console = Console(highlight=False, soft_wrap=True)
    if not figures.versions:
        console.print("no site has shared how good a version is there")
        return
    versions = Table(
        "version", "sites", "balanced accuracy", "95 %", "worst site", "", "answers at", box=None
    )
    for found in figures.versions:
        versions.add_row(
            f"{found.version}{' (best)' if found.best else ''}",
            str(found.sites),
            _share(found.weighted_mean),
            _interval(found.interval),
            escape(visible(found.worst_site or "")),
            _share(found.worst),
            f"{found.activated} of {found.sharing}",
        )
    console.print(versions)
    sites = Table(
        "site", "version", "verdict", "answers", "zero-shot", "shared", "private", "ensemble", box=None
    )
    for site in figures.sites.values():
        told = (site.classifiers.get(name) for name in ("zero_shot", "shared", "private", "ensemble"))
        sites.add_row(
            escape(visible(site.site)),
            str(site.version),
            site.verdict,
            "" if site.active is None else f"version {site.active}",
            *("" if found is None else f"{found.balanced_accuracy:.3f}" for found in told),
        )
    console.print(sites)
    for warning in figures.warnings:
        console.print(f"[yellow]{escape(visible(warning))}[/]")


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
