"""A federation of three sites with a page beside it, in this process."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection

import pytest

from fedmedclip.aggregator.control import carry_out_waiting, give_through
from fedmedclip.aggregator.page.federation_page import federation_page
from fedmedclip.aggregator.page.view import Showcase, Sources
from fedmedclip.protocol.pages.server import PageServer
from fedmedclip.protocol.pages.settings import PageSettings
from tests.simulation.federation.loopback import FEDERATION, Loopback

TOKEN = "0123456789abcdef-right"


@dataclass(frozen=True)
class Told:
    """Figures of a version, as sites may share them."""

    version: int
    weighted_mean: float | None
    worst: float | None
    best: bool = False
    sites: int = 3
    worst_site: str | None = "site-2"

    @property
    def interval(self):
        return self.weighted_mean - 0.04, self.weighted_mean + 0.04

    @property
    def worst_interval(self):
        return self.worst - 0.07, self.worst + 0.07


@dataclass(frozen=True)
class Bytes:
    """The traffic of a round."""

    round_number: int
    received_bytes: int
    sent_bytes: int = 9000


def sources():
    figures = [Told(v, 0.55 + 0.04 * v, 0.5 + 0.03 * v, v == 2) for v in (1, 2)]
    return Sources(
        lambda store: figures,
        lambda store: {"site-0": 0.8},
        lambda status: [Bytes(1, 7100), Bytes(2, 7300)],
        metrics_text=lambda status: f"versions {status.version}".encode(),
    )


class Watched:
    """A federation and its page. `step` lets it move on, `show` publishes how it stands."""

    def __init__(self, folder, *, allow_changes=True, token=TOKEN, sources=sources, **settings):
        self.federation = Loopback(folder, **{"sites": 3, "rounds": 5, "embedding_size": 8, **settings})
        self.coordinator = self.federation.coordinator
        told = sources()
        self.showcase = Showcase(self.federation.store, told)
        self.closing = threading.Event()
        self.cookie = None
        page = federation_page(
            FEDERATION,
            self.showcase,
            told,
            lambda command: give_through(self.federation.store.path, command, by="page"),
            self.closing,
            allowed=allow_changes,
        )
        self.page = page
        self.server = PageServer(page, PageSettings(port=0, token=token, allow_changes=allow_changes), folder)

    def play(self, version):
        while self.coordinator.global_head.version < version:
            self.federation.step()
        self.show()

    def show(self):
        self.coordinator.chronicle.write()
        self.showcase._next_at = None
        self.showcase.show(self.coordinator, self.federation.now)
        return self.showcase.view

    def section(self, name, may_change=False):
        (section,) = (section for section in self.page.sections if section.name == name)
        return section.render(may_change)

    def carry_out_commands(self, until=3.0):
        """Play the loop until a command was carried out."""
        end = time.monotonic() + until
        while time.monotonic() < end and not self.federation.store.open_commands():
            time.sleep(0.02)
        carry_out_waiting(self.federation.store, self.coordinator, self.federation.now)
        self.show()

    def ask(self, path, method="GET", body=None, **headers):
        """Return status, headers (by small letters) and body of an answer."""
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=20.0)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()


@contextmanager
def watched_in(folder):
    """A federation of three sites at version 2, with its page."""
    watched = Watched(folder)
    watched.play(2)
    watched.server.start()
    try:
        yield watched
    finally:
        watched.closing.set()
        watched.server.stop()


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """For tests that leave it as it is."""
    with watched_in(tmp_path_factory.mktemp("watched")) as watched:
        yield watched


@pytest.fixture
def fresh(tmp_path):
    """For tests that change or end it."""
    with watched_in(tmp_path) as watched:
        yield watched
