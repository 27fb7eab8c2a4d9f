"""A federation of three sites with a page beside it, in this process."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection

import msgspec
import pytest

from fedmedclip.aggregator.control import carry_out_waiting, give_through
from fedmedclip.aggregator.page.federation_page import federation_page
from fedmedclip.aggregator.page.view import Showcase
from fedmedclip.aggregator.traffic import RoundTraffic
from fedmedclip.aggregator.version_metrics import VersionFigures
from fedmedclip.protocol.pages.server import PageServer
from fedmedclip.protocol.pages.settings import PageSettings
from fedmedclip.protocol.signature import new_signing_key
from tests.simulation.federation.loopback import FEDERATION, Loopback

TOKEN = "0123456789abcdef-right"


def told(version):
    """Figures of a version, as three sites may share them."""
    mean, worst = 0.55 + 0.04 * version, 0.5 + 0.03 * version
    return VersionFigures(
        version,
        3,
        mean,
        "site-2",
        worst,
        version == 2,
        (mean - 0.04, mean + 0.04),
        (worst - 0.07, worst + 0.07),
    )


class ToldShowcase(Showcase):
    """Shows a federation whose sites have told how good each version is."""

    def _look(self, coordinator, now):
        view = super()._look(coordinator, now)
        numbers = range(1, view.status.version + 1)
        status = msgspec.structs.replace(
            view.status,
            versions=[told(version) for version in numbers],
            traffic=[RoundTraffic(number, 9000, 7000 + 100 * number) for number in numbers],
        )
        return replace(view, status=status, accuracies={"site-0": 0.8})


class Watched:
    """A federation and its page. `step` lets it move on, `show` publishes how it stands."""

    def __init__(self, folder, *, allow_changes=True, token=TOKEN, **settings):
        self.federation = Loopback(folder, **{"sites": 3, "rounds": 5, "embedding_size": 8, **settings})
        self.coordinator = self.federation.coordinator
        self.showcase = ToldShowcase(self.federation.store)
        self.closing = threading.Event()
        self.cookie = None
        page = federation_page(
            FEDERATION,
            self.showcase,
            partial(give_through, self.federation.store.path),
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
        carry_out_waiting(self.federation.store, self.coordinator, self.federation.now, new_signing_key())
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
