"""The page beside a running aggregator: it begins and ends with the run, and never ends it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from fedmedclip.aggregator.control import give_through
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.page.view import Showcase
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.pages.settings import PageSettings

log = logging.getLogger("fedmedclip.aggregator")

Show = Callable[[Coordinator, float], None]


@contextmanager
def page_beside(settings: PageSettings | None, federation: str, store: Store) -> Iterator[Show]:
    """Serve the page of a federation where its configuration has one; give what the loop is to call.

    Raises InvalidInputError for a token or certificates that cannot be used. Whatever else keeps the page
    from being there is a warning.
    """
    if settings is None:
        yield lambda coordinator, now: None
        return
    try:
        from fedmedclip.aggregator.page.federation_page import federation_page
        from fedmedclip.protocol.pages.server import start_page
    except ModuleNotFoundError as error:
        log.warning(
            "there is no page: %s is missing; pip install 'fedmedclip-edge[pages]', and start again",
            error.name,
        )
        yield lambda coordinator, now: None
        return
    showcase, closing = Showcase(store), threading.Event()
    page = federation_page(
        federation,
        showcase,
        partial(give_through, store.path, by="page"),
        closing,
        allowed=settings.allow_changes,
    )
    server = start_page(page, settings, store.path.parent)
    if server is None:
        yield lambda coordinator, now: None
        return
    shown: list[Coordinator] = []

    def show(coordinator: Coordinator, now: float) -> None:
        shown[:] = [coordinator]
        showcase.show(coordinator, now)

    try:
        yield show
        # Only a run that ends by itself comes here: whoever stops the aggregator does not wait.
        for coordinator in shown:
            showcase.show_last(coordinator, time.monotonic())
    finally:
        closing.set()
        server.stop()
