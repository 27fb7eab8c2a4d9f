"""The page of a site, put together from its sections, its buttons, and what programs read."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from fedmedclip.edge_client.page.consent import draw_plan
from fedmedclip.edge_client.page.data import draw_data
from fedmedclip.edge_client.page.desks import Desks
from fedmedclip.edge_client.page.glance import draw_glance
from fedmedclip.edge_client.page.history import draw_history
from fedmedclip.edge_client.page.record import draw_record
from fedmedclip.edge_client.page.versions import draw_versions
from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.pages.elements import Html
from fedmedclip.protocol.pages.page import Action, Document, Fields, Page, Section

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LONGEST_REASON = 300


class ViewSource(Protocol):
    """What knows what is to be shown; asked on any thread, many times a second."""

    def current(self) -> SiteView:
        """Return what is shown now."""

    def revision(self) -> int:
        """Return a number that is another one once anything that is shown has changed."""


def site_page(source: ViewSource, desks: Desks) -> Page:
    """Return the page of a site. A part that the site has not when this is called has no section."""
    now = source.current()
    sections = [
        section
        for section, part in zip(_sections(source, desks), _parts(now), strict=True)
        if part is not None
    ]
    return Page(
        f"{now.site}, in {now.federation}",
        "What this hospital takes part in, what has left it, and which version answers here.",
        tuple(sections),
        source.revision,
        _actions(desks),
        _documents(source, desks),
    )


def _sections(source: ViewSource, desks: Desks) -> list[Section]:
    def section(name: str, title: str, draw: Callable[[SiteView, bool], Html]) -> Section:
        return Section(name, title, lambda may_change: draw(source.current(), may_change))

    can_decide, can_choose = desks.consent is not None, desks.versions is not None
    can_verify, has_report = desks.verify is not None, desks.report is not None
    return [
        section("glance", "At a glance", draw_glance),
        section("plan", "The plan and consent", lambda view, change: draw_plan(view, change and can_decide)),
        section(
            "record",
            "What left and what came",
            lambda view, change: draw_record(view, change and can_verify, has_report),
        ),
        section("versions", "Versions", lambda view, change: draw_versions(view, change and can_choose)),
        section("history", "What happened", draw_history),
        section("data", "This hospital's images", draw_data),
    ]


def _parts(view: SiteView) -> list[object]:
    return [
        view.glance,
        view.plan,
        view.ledger or view.privacy,
        view.versions,
        view.history,
        view.data,
    ]


def _documents(source: ViewSource, desks: Desks) -> dict[str, Document]:
    documents = {
        "/api/status": Document("application/json", lambda: msgspec.json.encode(source.current())),
    }
    if desks.report is not None:
        documents["/report"] = Document("text/html; charset=utf-8", desks.report)
    if desks.metrics is not None:
        documents["/metrics"] = Document(METRICS_TYPE, desks.metrics)
    return documents


def _actions(desks: Desks) -> dict[str, Action]:
    actions: dict[str, Action] = {}
    if (consent := desks.consent) is not None:
        actions["approve"] = lambda fields, by: consent.approve(fields.get("terms", ""), _reason(fields), by)
        actions["refuse"] = lambda fields, by: consent.refuse(fields.get("terms", ""), _reason(fields), by)
    if (versions := desks.versions) is not None:
        actions["activate"] = lambda fields, by: versions.activate(fields.get("version", ""), by)
        actions["rollback"] = lambda fields, by: versions.rollback(by)
    if (verify := desks.verify) is not None:
        actions["verify"] = lambda fields, by: verify()
    return actions


def _reason(fields: Fields) -> str:
    """Return the reason that was typed. Raises InvalidInputError for one that is too long to be told."""
    reason = fields.get("reason", "").strip()
    if len(reason) > LONGEST_REASON:
        raise InvalidInputError(f"the reason has {len(reason)} characters; at most {LONGEST_REASON} are told")
    return reason
