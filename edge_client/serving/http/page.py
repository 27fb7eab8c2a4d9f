"""`GET /`: the service in a browser, for whoever keeps the box: counts and the model, no names, no images."""

import asyncio
from itertools import accumulate
from typing import ClassVar

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from fedmedclip.edge_client.serving.http.backing import Backing, Figures, Model
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.pages.application import page_application
from fedmedclip.protocol.pages.elements import Html, badge, element, facts, joined, table
from fedmedclip.protocol.pages.page import Page, Section
from fedmedclip.protocol.pages.settings import PageSettings

_PATHS = frozenset({"/", "/page.css", "/page.js", "/events", "/login", "/logout"})
_SHARES = (0.5, 0.95)


class _DoorPageSettings(PageSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Those of `[http]`, for a page that changes nothing."""

    TABLE: ClassVar[str] = "http"


def is_of_page(path: str) -> bool:
    """Whether a path is one of the page, not of the interface for programs."""
    return path in _PATHS or path.startswith("/section/")


def with_page(
    app: ASGIApp,
    settings: HttpSettings,
    token: bytes | None,
    backing: Backing,
    stopping: "asyncio.Future[None]",
) -> ASGIApp:
    """Return `app` with the page beside it, which lets in whoever the door lets in."""
    common = {
        name: getattr(settings, name) for name in PageSettings.__struct_fields__ if hasattr(settings, name)
    }
    page = page_application(service_page(backing), _DoorPageSettings(**common), token, stopping)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        of_page = scope["type"] == "http" and is_of_page(scope["path"])
        await (page if of_page else app)(scope, receive, send)

    return application


def service_page(backing: Backing) -> Page:
    """Return the page of a service."""
    return Page(
        "Images answered on this machine",
        "The resident service: what it has answered since it began, how quickly, and with what.",
        (
            Section("glance", "At a glance", lambda may_change: _glance(backing)),
            Section("answers", "Answers", lambda may_change: _answers(backing.figures())),
            Section("drift", "Drift", lambda may_change: _drift(backing.figures())),
            Section("model", "What answers", lambda may_change: _model(backing.model())),
        ),
        lambda: msgspec.json.encode((backing.fault(), _plain(backing.figures()), backing.model())),
    )


def _plain(figures: Figures) -> dict[str, object]:
    """Return figures with keys that JSON has."""
    found = msgspec.structs.asdict(figures)
    return found | {"results": sorted((*key, count) for key, count in figures.results.items())}


def _glance(backing: Backing) -> Html:
    figures, fault = backing.figures(), backing.fault()
    state = (
        badge("bad", f"Images are not answered: {fault}") if fault else badge("good", "Images are answered.")
    )
    waiting = sum(figures.deliveries_waiting.values())
    return joined(
        [
            element("p", state, class_="headline"),
            facts(
                [
                    ("Files without an answer yet", figures.waiting),
                    ("Files put aside", figures.aside),
                    ("Answers not delivered yet", waiting),
                    ("Files answered", sum(figures.waited)),
                    ("Half are answered within", _within(figures, _SHARES[0])),
                    ("95 % are answered within", _within(figures, _SHARES[1])),
                ]
            ),
        ]
    )


def _within(figures: Figures, share: float) -> str | None:
    """Return in words in which time that share of the files was answered; None before the first."""
    if not (files := sum(figures.waited)):
        return None
    for end, count in zip(figures.seconds, accumulate(figures.waited), strict=False):
        if count >= share * files:
            return f"{end:g} s"
    return f"more than {figures.seconds[-1]:g} s"


def _answers(figures: Figures) -> Html:
    labels, deliveries = sorted(figures.labels.items()), sorted(figures.deliveries_waiting.items())
    rows = [(door, outcome, count) for (door, outcome), count in sorted(figures.results.items())]
    return joined(
        [
            table("Images by door and outcome", ["Door", "Outcome", "Images"], rows, numbers=[2]),
            table("Answered images by class", ["Class", "Images"], labels, numbers=[1]),
            table("Deliveries that wait", ["Outlet", "Answers"], deliveries, numbers=[1]),
        ]
    )


def _drift(figures: Figures) -> Html:
    rows = [(name, f"{value:.3g}") for name, value in sorted(figures.drift.items())]
    return joined(
        [
            table("How far images are from those of training", ["Measured", "Value"], rows, numbers=[1]),
            element("p", "Whether that is an alarm: ", element("code", "fedmedclip serve drift")),
        ]
    )


def _model(model: Model | None) -> Html:
    if model is None:
        return element("p", "There are no heads to answer with yet.", class_="faint")
    found = model.provenance
    version = found.head_version
    return joined(
        [
            facts(
                [
                    ("Version of the heads", "zero-shot, without heads" if version is None else version),
                    ("Encoder", found.model),
                    ("Bundle", element("code", found.bundle[:16])),
                    ("Precision", found.precision),
                    ("Software", found.software),
                    (
                        "Prediction sets hold the true class",
                        None if model.level is None else f"{model.level:.0%}",
                    ),
                    ("Classes", ", ".join(model.class_names)),
                ]
            ),
            element("p", model.notice, class_="notice"),
        ]
    )
