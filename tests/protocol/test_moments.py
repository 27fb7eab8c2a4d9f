"""The moments of a sender: each later than all before, whatever its clock says."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol import moments as module
from fedmedclip.protocol.messages import LAST_WORD, LATEST_SESSION, Moment
from fedmedclip.protocol.moments import Moments, is_later, session_after


def begun(before=0, clock=1000.0):
    stored = []
    return Moments(before, stored.append, lambda: clock), stored


def test_what_is_said_is_later_than_what_was_said_before_and_a_last_will_ends_its_connection():
    moments, stored = begun()
    said = [moments.next(), moments.next()]
    will = moments.connect()
    said += [moments.next(), moments.last_word()]
    moments.connect()
    said += [moments.next(), moments.last_word()]
    assert stored == [1000]
    assert will == Moment(1000, 1, LAST_WORD) == said[3]
    assert all(is_later(after, before) for before, after in pairwise(said))
    assert is_later(said[0], None)
    assert not is_later(said[0], said[0])


@given(st.lists(st.tuples(st.floats(-1e12, 1e12), st.integers(0, 3), st.booleans()), min_size=1, max_size=20))
def test_sessions_rise_whatever_the_clock_says_and_whenever_the_process_ends(starts):
    before, latest = 0, None
    for clock, connections, speaks in starts:
        moments, stored = begun(before, clock)
        (before,) = stored
        for moment in [moments.connect() for _ in range(connections)] + [moments.next()] * speaks:
            if moment.sequence != LAST_WORD:
                assert is_later(moment, latest)
                latest = moment


@pytest.mark.parametrize(
    ("before", "clock", "session"),
    [
        (0, 1000.9, 1000), (1000, 1000.9, 1001), (5000, 10.0, 5001), (0, -5.0, 1),
        (0, 1e30, LATEST_SESSION // 2), (LATEST_SESSION, 0.0, LATEST_SESSION),
    ],
)  # fmt: skip
def test_a_session_is_the_clocks_or_one_more(before, clock, session):
    assert session_after(before, clock) == session


def test_a_sender_whose_state_is_older_than_what_it_had_said_goes_on_after_that():
    moments, stored = begun()
    moments.next()
    for known in (Moment(999, 9, 9), Moment(1000, 0, 1)):
        assert not moments.surpass(known)
    assert moments.surpass(Moment(1000, 0, 2))
    assert (moments.next(), stored) == (Moment(1001, 0, 2), [1000, 1001])
    assert moments.surpass(Moment(5000, 7, LAST_WORD))
    assert (moments.next(), stored[-1]) == (Moment(5001, 0, 3), 5001)


def test_the_step_between_two_messages_is_one():
    assert module.SEQUENCE_STEP == 1
