"""Partial participation and buffered rounds: for whom a round waits, and that it never waits for ever."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.aggregator.round_events import (
    CloseRound,
    HeadAdvanced,
    RoundSettings,
    SiteExcused,
    SiteHeard,
    SiteJoined,
    SiteLeft,
    Tick,
    UpdateStored,
)
from fedmedclip.aggregator.round_logic import Rounds
from fedmedclip.protocol.participation import LOTS, lot_of

SITES = tuple("abcdefgh")
TWO_OF_EIGHT = RoundSettings(100, 2, 100.0, 1000.0, sites_per_round=2)


def lots(site, round_number):
    return lot_of(7, site, round_number)


def eight(settings=TWO_OF_EIGHT, **more):
    return Rounds(settings, 0, SITES, 0.0, lots, **more)


def smallest(round_number, number, among=SITES):
    return tuple(sorted(sorted(among, key=lambda site: lots(site, round_number))[:number]))


def test_a_round_draws_the_sites_with_the_smallest_lots_and_waits_for_no_other():
    rounds = eight()
    for round_number in range(1, 30):
        drawn = rounds.awaited
        assert drawn == smallest(round_number, 2)
        assert [site for site in SITES if lots(site, round_number) < rounds.drawn_below] == list(drawn)
        assert rounds.handle(UpdateStored(drawn[0]), 1.0) is None
        assert rounds.handle(UpdateStored(drawn[1]), 2.0) == CloseRound(round_number, drawn)
        rounds.handle(HeadAdvanced(round_number), 3.0)


def test_over_many_rounds_every_site_is_drawn_about_as_often():
    rounds, drawn = eight(replace(TWO_OF_EIGHT, rounds=2000)), []
    for round_number in range(1, 1001):
        drawn += rounds.awaited
        rounds.handle(HeadAdvanced(round_number), 0.0)
    assert len(drawn) == 2000
    # 250 are expected of each; a binomial draw of them strays 14 as a rule.
    assert all(190 < drawn.count(site) < 310 for site in SITES)


@pytest.mark.parametrize("event", [SiteLeft, lambda site: SiteExcused(site, "its update was refused")])
def test_for_a_drawn_site_that_goes_or_is_refused_the_next_is_drawn(event):
    rounds = eight()
    first, second, third = sorted(SITES, key=lambda site: lots(site, 1))[:3]
    before = rounds.drawn_below
    rounds.handle(event(first), 1.0)
    assert set(rounds.awaited) == {second, third}
    assert rounds.drawn_below == lots(third, 1) + 1 > before


def test_drawn_sites_that_stay_silent_for_the_time_limit_make_way_for_others():
    rounds = eight()
    silent = rounds.awaited
    for now in (30.0, 60.0, 99.0):
        for site in SITES:
            rounds.handle(SiteHeard(site), now)
        rounds.handle(Tick(), now)
        assert rounds.awaited == silent
    rounds.handle(Tick(), 100.0)
    following = rounds.awaited
    assert len(following) == 2
    assert not set(following) & set(silent)
    assert set(rounds.excused()) == set(silent)
    rounds.handle(UpdateStored(following[0]), 120.0)
    # One of the first comes late in this round: it was drawn, and counts.
    assert rounds.drawn(silent[0])
    assert rounds.handle(UpdateStored(silent[0]), 130.0) is None
    assert rounds.handle(UpdateStored(following[1]), 140.0) == CloseRound(
        1, tuple(sorted((silent[0], *following)))
    )


def test_nobody_is_given_up_while_the_run_is_paused():
    rounds = eight(replace(TWO_OF_EIGHT, paused=True))
    drawn = rounds.awaited
    rounds.handle(Tick(), 500.0)
    rounds.settings = TWO_OF_EIGHT
    rounds.handle(Tick(), 590.0)
    assert rounds.awaited == drawn
    rounds.handle(Tick(), 600.0)
    assert not set(rounds.awaited) & set(drawn)


def test_where_there_are_fewer_sites_than_wanted_all_take_part_and_who_comes_is_drawn():
    rounds = Rounds(TWO_OF_EIGHT, 0, lot=lots)
    assert rounds.drawn_below == 0
    for site in "ab":
        rounds.handle(SiteJoined(site), 0.0)
    assert rounds.awaited == ("a", "b")
    rounds.handle(SiteLeft("a"), 1.0)
    rounds.handle(SiteJoined("c"), 2.0)
    assert rounds.awaited == ("b", "c")


def test_who_was_drawn_before_a_restart_still_is():
    rounds = eight()
    first, *_ = rounds.awaited
    rounds.handle(SiteLeft(first), 1.0)
    again = eight(drawn_below=rounds.drawn_below)
    assert set(again.awaited) >= set(rounds.awaited)
    assert again.drawn_below == rounds.drawn_below


def test_a_policy_that_is_switched_off_in_a_round_lets_everybody_in():
    rounds = eight()
    rounds.settings = replace(TWO_OF_EIGHT, sites_per_round=None)
    rounds.handle(Tick(), 1.0)
    assert rounds.awaited == SITES
    assert rounds.drawn_below is None


def test_without_a_policy_no_lot_is_drawn():
    def refuse(site, round_number):
        raise AssertionError("a lot was drawn")

    rounds = Rounds(RoundSettings(3, 2, 100.0), 0, SITES, 0.0, refuse)
    rounds.handle(HeadAdvanced(1), 0.0)
    assert rounds.awaited == SITES


BUFFERED = RoundSettings(100, 2, 100.0, 1000.0, buffer_size=3)


def test_a_full_buffer_closes_the_round_whoever_else_is_awaited():
    rounds = eight(BUFFERED)
    assert rounds.handle(UpdateStored("a"), 1.0) is None
    assert rounds.handle(UpdateStored("b", late=True), 2.0) is None
    assert rounds.handle(UpdateStored("c"), 3.0) == CloseRound(1, ("a", "b", "c"))


def test_a_site_whose_late_update_counts_is_still_awaited_and_counts_as_one_site():
    rounds = Rounds(replace(BUFFERED, minimum_sites=2, buffer_size=2), 0, "ab", 0.0)
    rounds.handle(UpdateStored("a", late=True), 1.0)
    assert rounds.awaited == ("a", "b")
    # Two updates, but one site.
    assert rounds.handle(UpdateStored("a"), 2.0) is None
    assert rounds.handle(UpdateStored("b"), 3.0) == CloseRound(1, ("a", "b"))


def test_a_buffer_that_cannot_fill_closes_when_nobody_is_left_to_wait_for():
    rounds = Rounds(BUFFERED, 0, "ab", 0.0)
    rounds.handle(UpdateStored("a"), 1.0)
    assert rounds.handle(UpdateStored("b"), 2.0) == CloseRound(1, ("a", "b"))


EVENTS = st.one_of(
    st.sampled_from(SITES).map(SiteJoined),
    st.sampled_from(SITES).map(SiteHeard),
    st.sampled_from(SITES).map(SiteLeft),
    st.builds(UpdateStored, st.sampled_from(SITES), st.booleans()),
    st.builds(SiteExcused, st.sampled_from(SITES), st.just("why")),
    st.just(Tick()),
)


@given(
    st.integers(2, 9),
    st.none() | st.integers(2, 9),
    st.lists(st.tuples(st.floats(0, 300), EVENTS), max_size=60),
)
def test_whatever_happened_a_round_closes_once_who_is_awaited_delivers(sites_per_round, buffer_size, timed):
    settings = RoundSettings(1000, 2, 100.0, 500.0, False, sites_per_round, buffer_size)
    rounds, bound = eight(settings), 0
    for now, event in sorted(timed, key=lambda item: item[0]):
        version = rounds.version
        if isinstance(rounds.handle(event, now), CloseRound):
            rounds.handle(HeadAdvanced(version + 1), now)
        else:
            # Nobody is called off within a round.
            assert (LOTS if rounds.drawn_below is None else rounds.drawn_below) >= bound
        bound = LOTS if rounds.drawn_below is None else rounds.drawn_below
    now, version = 301.0, rounds.version
    for site in SITES:
        rounds.handle(SiteHeard(site), now)
    for _ in range(20):
        now += 50.0
        waiting = rounds.awaited
        actions = [rounds.handle(UpdateStored(site), now) for site in waiting] + [rounds.handle(Tick(), now)]
        if any(isinstance(action, CloseRound) for action in actions):
            return
        for site in SITES:
            rounds.handle(SiteHeard(site), now)
    # All that is lacking then is a site that is not excused.
    assert len(rounds.excused()) == len(SITES)
    assert not rounds.delivered
