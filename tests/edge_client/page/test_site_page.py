"""What the page of a site says, with what buttons, and that no text becomes markup."""

import json

import msgspec
import pytest
from msgspec.structs import replace

from fedmedclip.edge_client.page.desks import Desks
from fedmedclip.edge_client.page.site_page import site_page
from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.page.views import HOSTILE, TERMS, Fixed, full_view
from tests.protocol.pages.test_elements import Read


class Desk:
    """Takes note of what it was asked."""

    def __init__(self):
        self.asked = []

    def approve(self, terms, reason, by):
        self.asked.append(("approve", terms, reason, by))
        return "approved"

    def refuse(self, terms, reason, by):
        self.asked.append(("refuse", terms, reason, by))
        return "refused"

    def activate(self, name, by):
        self.asked.append(("activate", name, by))
        return f"{name} answers"

    def rollback(self, by):
        self.asked.append(("rollback", by))
        return "rolled back"


def all_desks(desk):
    return Desks(desk, desk, lambda: "whole", lambda: b"<!doctype html>", lambda: b"up 1\n")


def inside(page, may_change=False):
    return {section.name: section.render(may_change) for section in page.sections}


def test_every_part_has_its_section_and_what_is_not_there_has_none():
    names = ["glance", "plan", "record", "versions", "history", "data"]
    assert list(inside(site_page(Fixed(full_view()), Desks()))) == names
    assert not inside(site_page(Fixed(SiteView("f", "s", "1")), Desks()))
    without = replace(full_view(), plan=None, versions=None)
    assert list(inside(site_page(Fixed(without), Desks()))) == ["glance", "record", "history", "data"]


@pytest.mark.parametrize("may_change", [False, True])
def test_no_text_of_others_becomes_markup(may_change):
    def tags_and_text(text):
        made = inside(site_page(Fixed(full_view(text)), all_desks(Desk())), may_change)
        return {name: (Read(html).tags, Read(html).text) for name, html in made.items()}

    plain, hostile = tags_and_text("plain"), tags_and_text(HOSTILE)
    for name, (tags, text) in hostile.items():
        assert tags == plain[name][0]
        assert text.isprintable()
        assert "<script>alert(1)</script>" in text


def test_buttons_are_for_those_who_may_change_something_and_where_somebody_is_at_the_desk():
    page = site_page(Fixed(full_view()), all_desks(Desk()))
    posted = {name: html.count("/do/") for name, html in inside(page, may_change=True).items()}
    assert posted == {"glance": 0, "plan": 2, "record": 1, "versions": 4, "history": 0, "data": 0}
    assert not any(html.count("/do/") for html in inside(page).values())
    without = site_page(Fixed(full_view()), Desks())
    assert not without.actions
    assert not any(html.count("/do/") for html in inside(without, may_change=True).values())
    assert list(without.documents) == ["/api/status"]


def test_the_buttons_ask_the_desks_for_what_they_say():
    desk = Desk()
    actions = site_page(Fixed(full_view()), all_desks(desk)).actions
    assert actions["approve"]({"terms": TERMS}, "Eva") == "approved"
    assert actions["refuse"]({"terms": TERMS, "reason": " too few patients "}, "Eva") == "refused"
    assert actions["activate"]({"version": "7:2"}, "Eva") == "7:2 answers"
    assert actions["rollback"]({}, "Eva") == "rolled back"
    assert actions["verify"]({}, "Eva") == "whole"
    assert desk.asked == [
        ("approve", TERMS, "", "Eva"), ("refuse", TERMS, "too few patients", "Eva"),
        ("activate", "7:2", "Eva"), ("rollback", "Eva"),
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="at most 300"):
        actions["refuse"]({"terms": TERMS, "reason": "x" * 301}, "Eva")


def test_programs_read_the_same_view():
    view = full_view()
    documents = site_page(Fixed(view), all_desks(Desk())).documents
    assert msgspec.json.decode(documents["/api/status"].make(), type=SiteView) == view
    assert documents["/report"].make().startswith(b"<!doctype html>")
    assert documents["/metrics"].media_type.startswith("text/plain")


def test_a_plan_that_waits_is_said_at_once_with_what_to_do():
    page = site_page(Fixed(full_view()), Desks())
    sections = inside(page)
    assert 'href="#plan"' in sections["glance"]
    assert "fedmedclip site approve" in sections["plan"]
    assert TERMS in sections["plan"]


def test_limits_and_a_ledger_that_is_not_whole_are_said():
    view = full_view()
    spent = replace(view.ledger, sent_today=replace(view.ledger.sent_today, bytes=2000))
    text = Read(inside(site_page(Fixed(replace(view, ledger=spent)), Desks()))["record"]).text
    assert "2 kB of 2 kB (100%)" in text
    assert "limit reached" in text
    assert "The ledger is not whole: plain" in text
    whole = replace(view.ledger, verified=replace(view.ledger.verified, faults=[]))
    text = Read(inside(site_page(Fixed(replace(view, ledger=whole)), Desks()))["record"]).text
    assert "The ledger is whole: 17 entries" in text


def test_moments_that_no_calendar_has_break_no_page():
    view = full_view()
    far = replace(view, glance=replace(view.glance, run=1 << 62))
    assert "no moment that a calendar has" in inside(site_page(Fixed(far), Desks()))["glance"]
    assert json.loads(site_page(Fixed(far), Desks()).documents["/api/status"].make())["site"] == "plain"


def test_a_full_page_of_the_largest_site_stays_light():
    view = full_view("0123456789" * 30)
    many = replace(
        view,
        ledger=replace(view.ledger, newest=view.ledger.newest * 50),
        versions=replace(view.versions, kept=view.versions.kept * 250),
        history=replace(view.history, events=view.history.events * 500),
    )
    page = site_page(Fixed(many), all_desks(Desk()))
    assert sum(len(html) for html in inside(page, may_change=True).values()) < 300_000
