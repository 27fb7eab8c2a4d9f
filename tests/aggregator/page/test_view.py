"""What the page's threads are given, and when that counts as changed."""

import threading
import time
from dataclasses import replace

import msgspec
import pytest

from fedmedclip.aggregator.page.view import Showcase
from tests.aggregator.page.conftest import Watched


@pytest.fixture
def quiet(tmp_path):
    """A federation with a page that does not listen."""
    watched = Watched(tmp_path)
    watched.play(1)
    return watched


def test_time_alone_changes_nothing(quiet):
    before = quiet.showcase.revision
    for _ in range(5):
        quiet.federation.now += 7.0
        quiet.show()
    assert quiet.showcase.revision == before
    quiet.play(2)
    assert quiet.showcase.revision > before


def test_it_is_made_once_a_second_and_more_seldom_where_that_takes_long(quiet, monkeypatch):
    showcase = Showcase(quiet.federation.store)
    made = []
    monkeypatch.setattr(showcase, "put", made.append)
    for now in (0.0, 0.5, 0.9, 1.6, 1.7, 3.0):
        showcase.show(quiet.coordinator, now)
    assert len(made) == 3
    monkeypatch.setattr(showcase, "put", lambda view: time.sleep(0.1))
    showcase.show(quiet.coordinator, 100.0)
    monkeypatch.setattr(showcase, "put", made.append)
    showcase.show(quiet.coordinator, 104.9)
    assert len(made) == 3
    showcase.show(quiet.coordinator, 200.0)
    assert len(made) == 4


def test_moments_of_what_is_the_same_stay_the_same(quiet):
    quiet.federation.now += 10_000.0
    quiet.coordinator.tick(quiet.federation.now)
    first = quiet.show()
    assert set(first.heard) == {"site-0", "site-1", "site-2"}
    quiet.showcase._clock = lambda: time.time() + 0.4
    again = quiet.show()
    assert again.heard == first.heard


def test_the_end_of_a_run_is_shown_though_a_view_is_not_due(quiet):
    showcase = Showcase(quiet.federation.store)
    showcase.show(quiet.coordinator, 0.0)
    while not quiet.coordinator.global_head.finished:
        quiet.federation.step()
    showcase.show_last(quiet.coordinator, 0.1)
    assert showcase.view.status.finished
    assert showcase.revision == 2


def test_whoever_asks_before_there_is_anything_waits(quiet):
    showcase = Showcase(quiet.federation.store)
    found = []
    reader = threading.Thread(target=lambda: found.append(showcase.view))
    reader.start()
    showcase.show(quiet.coordinator, 0.0)
    reader.join(5.0)
    assert found[0].status.federation == quiet.coordinator.federation


def test_the_status_for_programs_is_the_newest_also_where_nothing_has_changed(quiet):
    before = quiet.showcase.view
    later = msgspec.structs.replace(before.status, round_seconds=77.0)
    quiet.showcase.put(replace(before, status=later))
    assert quiet.showcase.view.status.round_seconds == 77.0
