"""What the page of a site reads of plan, ledger and versions, and what its buttons do."""

import logging
import socket
import sys
from datetime import date, datetime

import pytest

from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER, segments_in
from fedmedclip.edge_client.ledger.totals import QUARTER_SECONDS
from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.edge_client.site.configuration import SiteConfiguration, SitePageSettings
from fedmedclip.edge_client.site.opened_page import open_page
from fedmedclip.edge_client.site.page_consent import Desk, consent_reader
from fedmedclip.edge_client.site.page_ledger import LedgerReader, days_of
from fedmedclip.edge_client.site.page_readers import read_events, with_decisions
from fedmedclip.edge_client.site.page_versions import interval
from fedmedclip.edge_client.site.page_view import PageSource
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.standing import Now, Standing
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.site.watch import Watch
from fedmedclip.edge_client.versions.records import VoterFigures
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.plan_words import terms_hash
from tests.edge_client.site.conftest import PLAN


@pytest.fixture
def source(state, tmp_path):
    """A source with plan and events, of a site that is asked for `PLAN`."""
    state.consents.note_asked(PLAN)
    readers = (read_events, consent_reader("ask"), with_decisions)
    now = Now(True, 1.0, Standing(PLAN, declined="not approved yet"))
    made = PageSource(SiteView("f", "s", "1"), lambda: now, lambda: SiteState(tmp_path / "site.db"), readers)
    yield made
    made.close()


def test_a_plan_is_approved_by_its_hash_alone_and_recorded_with_who_did_it(state, source):
    view = source.current()
    assert view.glance.doing.startswith("Waits for your decision")
    assert (view.plan.awaits_decision, view.plan.approved, view.plan.terms) == (True, False, terms_hash(PLAN))
    desk = Desk(source)
    for other in ("", "0" * 64, terms_hash(PLAN).upper()):
        with pytest.raises(InvalidInputError, match="changed since this page was read"):
            desk.approve(other, "", "page")
    assert not state.consents.decisions()
    assert "takes part" in desk.approve(terms_hash(PLAN), "ethics vote 12", "Eva (page)")
    view = source.current()
    assert (view.plan.awaits_decision, view.plan.approved) == (False, True)
    assert [(event.kind, event.words) for event in view.history.events] == [
        ("approved", "by Eva (page): ethics vote 12")
    ]
    assert state.consents.covers(PLAN)
    assert "takes no part" in desk.refuse(terms_hash(PLAN), "", "page")
    assert not state.consents.covers(PLAN)
    assert [decision.by for decision in state.consents.decisions()] == ["Eva (page)", "page"]


def test_what_left_is_counted_by_days_of_this_machines_calendar():
    noon = datetime(2026, 3, 29, 12).timestamp()
    counted = {
        (int((noon - 86_400 * ago) // QUARTER_SECONDS), direction, "Update"): (1, 10 + ago)
        for ago, direction in ((0, "out"), (1, "out"), (1, "in"), (13, "out"), (14, "out"), (400, "out"))
    }
    found = {day.days_ago: day.bytes for day in days_of(counted, date(2026, 3, 29))}
    assert list(found) == list(range(13, -1, -1))
    assert {ago: size for ago, size in found.items() if size} == {0: 10, 1: 11, 13: 23}


def site_in(folder):
    """Write a site's configuration with its state beside it, and a ledger of two entries."""
    path = folder / "site.toml"
    path.write_text('[site]\nfederation = "f"\nname = "a"\nbundle = "b"\ndata = "d"\nstate = "."\n')
    state = SiteState(folder / "site.db")
    ledger = MessageLedger(folder / LEDGER_FOLDER, state.ledger_end)
    ledger.record("out", "up", b"12345", "Update", "round 1")
    ledger.record("in", "down", b"123", "Receipt", "[1,2]")
    ledger.close()
    return path, state


def test_the_ledger_is_shown_and_a_change_in_it_is_found(tmp_path):
    path, state = site_in(tmp_path)
    reader = LedgerReader(path, tmp_path, PolicySettings(bytes_per_day=50))
    found = reader.read(state, SiteView("f", "a", "1"), datetime.now().timestamp()).ledger
    assert (found.sent.bytes, found.received.bytes, found.bytes_per_day) == (5, 3, 50)
    assert [(entry.kind, entry.note) for entry in found.newest[:2]] == [
        ("Receipt", ""),
        ("Update", "round 1"),
    ]
    assert reader.verify().startswith("The ledger is whole")
    assert b"Update" in reader.report()
    ((_, segment),) = segments_in(tmp_path / LEDGER_FOLDER)
    segment.write_bytes(segment.read_bytes().replace(b"round 1", b"round 7"))
    assert reader.verify().startswith("The ledger is not whole: ")
    ledger = reader.read(state, SiteView("f", "a", "1"), datetime.now().timestamp()).ledger
    assert ledger.verified.faults
    state.close()


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ({"a": (5, 5), "b": (5, 5)}, 0.6, 1.0),
        ({"a": (0, 5), "b": (0, 5)}, 0.0, 0.4),
        ({"a": (500, 1000), "b": (500, 1000)}, 0.475, 0.525),
        ({"a": (1, 1)}, 0.0, 1.0),
    ],
)
def test_an_interval_is_wide_where_images_are_few_also_where_all_were_right(counts, low, high):
    balanced = sum(right / images for right, images in counts.values()) / len(counts)
    found = interval(VoterFigures(balanced, balanced, 0.1, 0.1, 0.1, counts))
    assert 0.0 <= found[0] <= balanced <= found[1] <= 1.0
    assert found == pytest.approx((low, high), abs=0.25)
    assert (found[1] - found[0] < 0.1) == (sum(images for _, images in counts.values()) > 100)


def test_there_is_no_interval_without_images():
    assert interval(VoterFigures(0.0, 0.0, 0.0, 0.0, 0.0, {})) == (None, None)


def opened(tmp_path, **settings):
    path, state = site_in(tmp_path)
    text = "\n".join(f"{name} = {value}" for name, value in settings.items())
    path.write_text(f"{path.read_text()}\n[page]\n{text}\n")
    configuration = read_configuration(path, SiteConfiguration)
    assert isinstance(configuration.page, SitePageSettings)
    watch = Watch(state.events, lambda: Standing())
    page = open_page(configuration, path, tmp_path, watch, agent=None, link=None)
    state.close()
    return page


def test_a_port_that_is_taken_leaves_the_site_without_a_page(tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert opened(tmp_path, port=other.getsockname()[1]) is None
    assert "there is no page: [page] cannot listen on" in caplog.text


def test_a_package_that_is_missing_leaves_the_site_without_a_page(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    for name in [name for name in sys.modules if name.startswith("fedmedclip.protocol.pages.")]:
        monkeypatch.delitem(sys.modules, name)
    assert opened(tmp_path, port=0) is None
    (said,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said.startswith("there is no page: starlette.applications is missing; pip install ")


def test_a_page_is_opened_and_stopped_and_a_bad_token_is_refused(tmp_path):
    opened(tmp_path, port=0).stop()
    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidInputError, match="token"):
        opened(tmp_path / "other", port=0, token='"short"')
