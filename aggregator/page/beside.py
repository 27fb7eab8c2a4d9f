"""The page beside a running aggregator: it begins and ends with the run, and never ends it."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from fedmedclip.aggregator.control import give_through
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.page.view import Showcase
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.pages.settings import PageSettings

if TYPE_CHECKING:
    from fedmedclip.protocol.pages.server import PageServer

log = logging.getLogger("fedmedclip.aggregator")

# For those who follow a page to read how the run has ended.
LAST_WORDS_SECONDS = 2.0


class PageBeside:
    """What the aggregator tells its page; one without a server is told in vain."""

    def __init__(self, showcase: Showcase, server: "PageServer | None", closing: threading.Event) -> None:
        self._showcase = showcase
        self._server = server
        self._closing = closing

    def show(self, coordinator: Coordinator, now: float) -> None:
        """Show how the federation stands, if that is due. `now` is a reading of a monotonic clock."""
        if self._server is not None:
            self._showcase.show(coordinator, now)

    def show_last(self, coordinator: Coordinator, stays_seconds: float) -> None:
        """Show how a run has ended, and where somebody follows, stay for at most so many seconds.

        Whoever stops the aggregator does not wait.
        """
        if self._server is None:
            return
        self._showcase.show_last(coordinator, time.monotonic())
        self._closing.set()
        self._server.stay(stays_seconds)


@contextmanager
def page_beside(settings: PageSettings | None, federation: str, store: Store) -> Iterator[PageBeside]:
    """Serve the page of a federation where its configuration has one; give what the aggregator tells.

    Raises InvalidInputError for a token or certificates that cannot be used. Whatever else keeps the page
    from being there is a warning.
    """
    showcase, closing = Showcase(store), threading.Event()
    server = None if settings is None else _served(settings, federation, store, showcase, closing)
    try:
        yield PageBeside(showcase, server, closing)
    finally:
        closing.set()
        if server is not None:
            server.stop()


def _served(
    settings: PageSettings, federation: str, store: Store, showcase: Showcase, closing: threading.Event
) -> "PageServer | None":
    try:
        from fedmedclip.aggregator.page.federation_page import federation_page
        from fedmedclip.protocol.pages.server import start_page
    except ModuleNotFoundError as error:
        log.warning(
            "there is no page: %s is missing; pip install 'fedmedclip-edge[pages]', and start again",
            error.name,
        )
        return None
    give = partial(give_through, store.path)
    page = federation_page(federation, showcase, give, closing, allowed=settings.allow_changes)
    return start_page(page, settings, store.path.parent)
