"""The page beside a site's loop, where `[page]` of its configuration asks for one."""

import logging
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.site.watch import Watch
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.link.link import Link

log = logging.getLogger("fedmedclip.site")


class Stoppable(Protocol):
    """What is stopped with the site."""

    def stop(self) -> None:
        """Stop."""


def open_page(
    configuration: SiteConfiguration,
    configuration_file: Path,
    state_folder: Path,
    watch: Watch,
    agent: SiteAgent,
    link: Link,
) -> Stoppable | None:
    """Return the site's page, which is served; None where none is wanted, or, with a warning, to be had.

    Raises InvalidInputError for a token or certificates that cannot be used.
    """
    settings = configuration.page
    if settings is None:
        return None
    try:
        from fedmedclip.edge_client.page.desks import Desks
        from fedmedclip.edge_client.page.site_page import site_page
        from fedmedclip.edge_client.page.view import SiteView
        from fedmedclip.edge_client.site.numbers import numbers_of_process, stored_numbers
        from fedmedclip.edge_client.site.page_consent import Desk, consent_reader
        from fedmedclip.edge_client.site.page_ledger import LedgerReader
        from fedmedclip.edge_client.site.page_readers import (
            data_reader,
            privacy_reader,
            read_events,
            with_decisions,
        )
        from fedmedclip.edge_client.site.page_versions import Shelf, versions_reader
        from fedmedclip.edge_client.site.page_view import PageSource
        from fedmedclip.edge_client.site.prometheus import metrics_text
        from fedmedclip.protocol.pages.server import start_page
    except ModuleNotFoundError as error:
        log.warning(
            "there is no page: %s is missing; pip install 'fedmedclip-edge[pages]', and start again",
            error.name,
        )
        return None
    ledger = LedgerReader(configuration_file, state_folder, configuration.policy)

    def metrics() -> bytes:
        return metrics_text(numbers_of_process(stored_numbers(configuration_file), agent, link.traffic))

    def verify() -> str:
        try:
            return ledger.verify()
        finally:
            source.refresh()

    source = PageSource(
        SiteView(configuration.site.federation, configuration.site.name, version("fedmedclip-edge")),
        lambda: watch.now,
        lambda: SiteState(state_folder / "site.db"),
        (
            read_events,
            ledger.read,
            consent_reader(configuration.policy.approve),
            versions_reader(state_folder, configuration.policy.activate),
            privacy_reader(configuration.privacy),
            data_reader(state_folder),
            with_decisions,
        ),
    )
    desks = Desks(
        Desk(source),
        Shelf(state_folder, source.refresh),
        verify=verify,
        report=ledger.report,
        metrics=metrics,
    )
    try:
        page = site_page(source, desks)
        served = start_page(page, settings.relative_to(configuration_file.resolve().parent), state_folder)
    except StorageError as error:
        log.warning("there is no page: %s", error)
        served = None
    except BaseException:
        source.close()
        raise
    if served is None:
        source.close()
        return None
    return _Opened(served, source)


class _Opened:
    def __init__(self, server: Stoppable, source: "_Closable") -> None:
        self._server = server
        self._source = source

    def stop(self) -> None:
        """Answer what is in hand, then stop."""
        self._server.stop()
        self._source.close()


class _Closable(Protocol):
    def close(self) -> None: ...
