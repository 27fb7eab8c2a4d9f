"""When what is retained at the broker is published once more."""

from itertools import pairwise

import pytest

from fedmedclip.aggregator.retained import (
    ANSWER_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LOOK_SECONDS,
    QUIET_SECONDS,
    Retained,
)

PLAN, HEAD = "fmc1/trial/plan", "fmc1/trial/head"


@pytest.fixture
def retained():
    retained = Retained()
    retained.connected(0.0)
    retained.published(PLAN, b"plan", 0.0)
    retained.published(HEAD, b"head", 0.0)
    return retained


@pytest.mark.parametrize("hostile", [b"", b"another plan"])
def test_what_somebody_changes_comes_back_alone_and_at_once(retained, caplog, hostile):
    retained.seen(PLAN, hostile, 5.0)
    assert retained.due(5.0 + FIRST_PAUSE_SECONDS) == [(PLAN, b"plan")]
    assert caplog.messages == [f"somebody changed what is retained on {PLAN}; putting it back"]
    assert retained.due(100.0) == []


def test_an_older_message_of_its_own_that_was_on_its_way_is_no_change(retained):
    retained.published(HEAD, b"next head", 5.0)
    retained.seen(HEAD, b"head", 5.1)
    retained.seen(HEAD, b"next head", 5.2)
    assert retained.due(20.0) == []


def test_who_changes_it_again_and_again_is_answered_every_half_minute_and_named_once(retained, caplog):
    mended = []
    for tick in range(3000):
        now = tick / 10
        retained.seen(PLAN, b"", now)
        mended += [now for _ in retained.due(now)]
    assert 10 <= len(mended) <= 300 / LONGEST_PAUSE_SECONDS + 5
    assert max(after - before for before, after in pairwise(mended)) < 60
    assert len(caplog.messages) == 1
    retained.seen(PLAN, b"plan", 300.0)
    retained.seen(PLAN, b"", 301.0 + QUIET_SECONDS)
    assert retained.due(301.0 + QUIET_SECONDS + FIRST_PAUSE_SECONDS) == [(PLAN, b"plan")]


def test_what_nobody_told_of_is_found_within_a_minute(retained):
    assert retained.to_look_at(LOOK_SECONDS - 1) == []
    assert retained.to_look_at(LOOK_SECONDS) == [PLAN, HEAD]
    assert retained.to_look_at(LOOK_SECONDS + 1) == []
    retained.seen(PLAN, b"plan", LOOK_SECONDS + 1)
    assert retained.due(LOOK_SECONDS + ANSWER_SECONDS + FIRST_PAUSE_SECONDS) == []
    assert retained.due(LOOK_SECONDS + ANSWER_SECONDS + 2 * FIRST_PAUSE_SECONDS) == [(HEAD, b"head")]
    assert retained.to_look_at(LOOK_SECONDS + 20) == []
    assert retained.to_look_at(2 * LOOK_SECONDS + 1) == [PLAN]


def test_without_a_connection_nothing_is_asked_or_piles_up(retained):
    retained.to_look_at(LOOK_SECONDS)
    retained.disconnected()
    assert retained.due(LOOK_SECONDS + 100) == retained.to_look_at(LOOK_SECONDS + 100) == []
    retained.connected(1000.0)
    assert retained.due(1000.0) == retained.to_look_at(1000.0) == []


def test_topics_of_others_are_of_no_interest(retained):
    retained.seen("fmc1/trial/roster", b"", 0.0)
    assert retained.due(100.0) == []
