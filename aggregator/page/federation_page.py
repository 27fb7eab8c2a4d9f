"""The page of a federation: its sections in order, its buttons, and what programs read."""

import threading
from collections.abc import Callable

import msgspec

from fedmedclip.aggregator.page.glance import ABOUT, glance
from fedmedclip.aggregator.page.history import accuracy, events, traffic, versions
from fedmedclip.aggregator.page.members import members, time_lines
from fedmedclip.aggregator.page.steering import Give, actions, steering
from fedmedclip.aggregator.page.view import Showcase, View
from fedmedclip.aggregator.prometheus import metrics_text
from fedmedclip.aggregator.status import FederationStatus
from fedmedclip.protocol.exposition import MEDIA_TYPE
from fedmedclip.protocol.pages.elements import Html, facts
from fedmedclip.protocol.pages.page import Document, Page, Section
from fedmedclip.protocol.plan_words import plan_in_words

_JSON = "application/json"


def federation_page(
    federation: str,
    showcase: Showcase,
    give: Give,
    closing: threading.Event,
    *,
    allowed: bool = False,
) -> Page:
    """Return the page of what `showcase` holds. `allowed` says whether its configuration has buttons at all;
    `give` gives a command to the aggregator and waits for the answer.
    """

    def section(name: str, title: str, render: Callable[[View], Html]) -> Section:
        return Section(name, title, lambda may_change: render(showcase.view))

    def status() -> FederationStatus:
        return showcase.view.status

    def happened() -> bytes:
        return msgspec.json.encode(list(showcase.view.happenings))

    documents = {
        "/api/status": Document(_JSON, lambda: msgspec.json.encode(status())),
        "/api/happenings": Document(_JSON, happened),
        "/metrics": Document(MEDIA_TYPE, lambda: metrics_text(status())),
    }
    return Page(
        f"Federation {federation}",
        ABOUT,
        (
            section("glance", "At a glance", glance),
            section("accuracy", "Accuracy of each version", accuracy),
            section("time-line", "Time line", time_lines),
            section("members", "Members", members),
            section("bytes", "Bytes of each round", traffic),
            Section("versions", "Versions", lambda may_change: versions(showcase.view, may_change)),
            section("events", "Events", events),
            section("plan", "What is trained", lambda view: facts(plan_in_words(view.plan))),
            Section(
                "steering",
                "Steer the run",
                lambda may_change: steering(showcase.view, may_change, allowed=allowed),
            ),
        ),
        lambda: showcase.revision,
        actions(give, closing),
        documents,
    )
