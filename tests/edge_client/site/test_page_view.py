"""What the page of a site is told: what the loop lets see, and what is stored."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from msgspec.structs import replace

from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.edge_client.site import page_view
from fedmedclip.edge_client.site.events import Event
from fedmedclip.edge_client.site.page_readers import read_data, read_events, spans
from fedmedclip.edge_client.site.page_view import PageSource
from fedmedclip.edge_client.site.standing import Now, Standing, in_words
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.site.watch import Watch
from tests.edge_client.site.conftest import PLAN

JOINED = Standing(PLAN, joined=True, version=1, trained_round=1)


@pytest.mark.parametrize(
    ("now", "tone", "words"),
    [
        (Now(False, 0.0), "bad", "not connected"),
        (Now(True, 0.0), "waiting", "begin a run"),
        (Now(True, 0.0, Standing(PLAN, declined="no")), "waiting", "Takes no part in this run: no."),
        (Now(True, 0.0, Standing(PLAN)), "waiting", "Asks the coordinator"),
        (Now(True, 0.0, JOINED), "good", "Waits to train round 2"),
        (Now(True, 0.0, JOINED, 2), "good", "Trains round 2 of 3"),
        (Now(False, 0.0, JOINED, 2), "good", "Trains round 2 of 3"),
        (Now(True, 0.0, replace(JOINED, trained_round=2, under_way=True)), "good", "Sends its update of"),
        (Now(True, 0.0, replace(JOINED, trained_round=2)), "good", "waits for the other sites"),
        (Now(True, 0.0, replace(JOINED, withheld="bytes_per_day = 9 is reached")), "waiting", "= 9 is"),
        (Now(True, 0.0, replace(JOINED, plan=replace(PLAN, paused=True))), "quiet", "paused"),
        (Now(True, 0.0, replace(JOINED, version=3, finished=True)), "good", "finished: its last version, 3"),
        (Now(True, 0.0, replace(JOINED, version=-1)), "good", "first version"),
    ],
)  # fmt: skip
def test_what_a_site_does_is_a_sentence(now, tone, words):
    assert in_words(now)[0] == tone
    assert words in in_words(now)[1]


@pytest.fixture
def source(state, monkeypatch):
    """The page's source beside a site's open state, and the watch of its loop; it looks at once."""
    monkeypatch.setattr(page_view, "_FRESH_SECONDS", 0.0)
    watch = Watch(state.events, lambda: JOINED)
    made = PageSource(
        SiteView("f", "s", "1"),
        lambda: watch.now,
        lambda: SiteState(state._database.path),
        (read_events,),
        clock=lambda: 1_790_000_000.0,
    )
    yield made, watch
    made.close()


def test_the_number_changes_only_when_something_that_is_shown_does(source):
    made, watch = source
    first = made.revision()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: made.revision(), range(50))) == {first}
    watch.connection(stands=True, words="to the broker")
    second = made.revision()
    assert second != first
    assert made.current().glance.connected
    watch.trains(2)
    assert made.current().glance.doing == "Trains round 2 of 3 on this hospital's images."
    third = made.revision()
    watch.look()
    watch.look()
    assert made.revision() in (third, third + 1)
    assert [event.kind for event in made.current().history.events] == ["connected"]


def test_what_is_done_at_a_desk_is_seen_at_once(source):
    made, _ = source
    before = made.revision()

    def act(state):
        state.events.note("approved", "by the page")
        state.events.write(at_once=True)
        return "done"

    assert made.do(act) == "done"
    assert made.revision() != before
    assert [event.kind for event in made.current().history.events] == ["approved"]


def test_a_process_that_was_killed_was_connected_until_it_was_heard_of_last():
    def at(second, kind):
        return Event(float(second), kind, "")

    events = [
        at(1, "connected"), at(3, "trained"), at(9, "started"), at(10, "connected"), at(12, "disconnected"),
        at(13, "connected"), at(14, "stopped"), at(20, "started"), at(21, "connected"),
    ]  # fmt: skip
    assert spans(events, 30.0) == [(1.0, 3.0), (10.0, 12.0), (13.0, 14.0), (21.0, 30.0)]


def test_of_the_report_on_the_images_no_file_name_is_read(tmp_path):
    part = {"images": 2, "groups": 1}
    findings = {
        "data": "/PLANTED", "digest": "PLANTED", "images": 4, "different": 3,
        "classes": [{"name": "glioma", "images": 4, "different": 3, "groups": 2, "share": 1.0,
                     "parts": {"train": part, "validation": part, "test": part}}],
        "sizes": {}, "ignored_files": 1,
        "skipped": [{"reason": "not an image", "count": 2, "files": ["PLANTED.png"]}],
        "groups": {"sources": {}, "count": 2, "largest": 3, "sizes": {}}, "split_origin": "",
        "pairs_across": {"near-copy": 1}, "pairs_within": {"near-copy": 2, "same bytes": 4, "look-alike": 8},
        "across": [{"first": "PLANTED"}], "within": [], "remarks": ["look at PLANTED.png"],
        "split": {"file": "PLANTED", "unrecorded": 0, "test": 9, "test_copies_in_training": 1,
                  "test_look_alikes_in_training": 2, "groups_in_two_parts": 0},
    }  # fmt: skip
    (tmp_path / "data.json").write_bytes(msgspec.json.encode(findings))
    found = read_data(tmp_path)
    assert "PLANTED" not in msgspec.json.encode(found).decode().replace(str(tmp_path), "")
    assert (found.near_copies, found.copies, found.look_alikes, found.contradictory) == (3, 4, 8, 1)
    assert (found.tests, found.tests_with_mate, found.remarks) == (9, 3, 1)
    (tmp_path / "data.json").write_bytes(b"{damaged")
    assert read_data(tmp_path) is None
