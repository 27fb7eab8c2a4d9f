"""When a round closes, and for whom it waits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.aggregator.round_events import (
    CloseRound,
    HeadAdvanced,
    ReportOverdue,
    RoundSettings,
    SiteExcused,
    SiteHeard,
    SiteJoined,
    SiteLeft,
    Tick,
    UpdateLost,
    UpdateStored,
)
from fedmedclip.aggregator.round_logic import Rounds

SETTINGS = RoundSettings(rounds=3, minimum_sites=2, timeout_seconds=100.0, lease_seconds=50.0)


def play(events, rounds=None, settings=SETTINGS):
    """Feed (time, event) pairs; return the rounds and the actions that came up, with their times."""
    rounds = rounds or Rounds(settings, version=0)
    actions = [(now, action) for now, event in events if (action := rounds.handle(event, now)) is not None]
    return rounds, actions


def three_sites():
    return [(0.0, SiteJoined(site)) for site in "abc"]


def test_a_round_closes_when_everybody_present_has_delivered():
    _, actions = play(
        [*three_sites(), (1, UpdateStored("c")), (2, UpdateStored("a")), (3, UpdateStored("b"))]
    )
    assert actions == [(3, CloseRound(1, ("a", "b", "c")))]


def test_a_site_that_leaves_is_not_waited_for():
    events = [*three_sites(), (1, UpdateStored("a")), (2, UpdateStored("b")), (3, SiteLeft("c"))]
    assert play(events)[1] == [(3, CloseRound(1, ("a", "b")))]


def test_a_site_that_is_slow_but_heard_is_waited_for_until_the_time_is_over():
    events = [*three_sites(), (10, UpdateStored("a")), (20, UpdateStored("b")), (40, SiteHeard("c"))]
    events += [(80, SiteHeard("c")), (109, Tick()), (110, Tick())]
    assert play(events)[1] == [(110, CloseRound(1, ("a", "b")))]


def test_a_site_that_says_nothing_is_waited_for_one_lease_long():
    events = [*three_sites(), (10, UpdateStored("a")), (20, UpdateStored("b")), (49, Tick()), (50, Tick())]
    rounds, actions = play(events)
    assert actions == [(50, CloseRound(1, ("a", "b")))]
    assert not rounds.present("c")
    rounds.handle(HeadAdvanced(1), 50)
    rounds.handle(SiteHeard("c"), 60)
    assert "c" in rounds.awaited


def test_members_of_before_a_restart_count_as_present_for_one_lease():
    rounds = Rounds(SETTINGS, 0, "abc", now=1000.0)
    assert rounds.awaited == ("a", "b", "c")
    _, actions = play([(1001, UpdateStored("a")), (1002, UpdateStored("b")), (1050, Tick())], rounds)
    assert actions == [(1050, CloseRound(1, ("a", "b")))]


def test_a_lease_that_is_changed_holds_for_those_that_run():
    rounds, _ = play([*three_sites(), (10, UpdateStored("a")), (20, UpdateStored("b"))])
    rounds.settings = replace(SETTINGS, lease_seconds=30.0)
    _, actions = play([(29, Tick()), (30, Tick())], rounds)
    assert actions == [(30, CloseRound(1, ("a", "b")))]
    play([(31, SiteHeard("a"))], rounds)
    rounds.settings = replace(SETTINGS, lease_seconds=60.0)
    for now, present in ((90, True), (91, False)):
        rounds.handle(Tick(), now)
        assert rounds.present("a") == present


def test_without_another_beginning_their_lease_begins_at_0():
    rounds = Rounds(SETTINGS, 0, "ab")
    rounds.handle(Tick(), 49.5)
    assert rounds.awaited == ("a", "b")
    rounds.handle(Tick(), 50.0)
    assert rounds.awaited == ()


def test_a_refused_site_is_not_waited_for_and_lowers_what_is_needed():
    settings = RoundSettings(rounds=3, minimum_sites=3, timeout_seconds=100.0)
    events = [*three_sites(), (1, UpdateStored("a")), (2, SiteExcused("c", "norm")), (3, UpdateStored("b"))]
    rounds, actions = play(events, settings=settings)
    assert actions == [(3, CloseRound(1, ("a", "b")))]
    assert rounds.excused() == {"c": "norm"}
    rounds.handle(HeadAdvanced(1), 4)
    assert (rounds.excused(), rounds.awaited, rounds.needed()) == ({}, ("a", "b", "c"), 3)


def test_a_site_whose_operator_has_not_approved_the_round_is_not_waited_for_and_lowers_nothing():
    undecided = [(1, SiteExcused(site, "not approved yet", undecided=True)) for site in "ab"]
    rounds, actions = play([*three_sites(), *undecided, (2, UpdateStored("c")), (1e6, Tick())])
    assert not [action for _, action in actions if isinstance(action, CloseRound)]
    assert (rounds.awaited, rounds.needed()) == ((), 2)
    # Its operator approves, and it takes part after all.
    assert play([(1e6 + 1, UpdateStored("a"))], rounds)[1] == [(1e6 + 1, CloseRound(1, ("a", "c")))]
    rounds.handle(HeadAdvanced(1), 1e6 + 2)
    assert (rounds.excused(), rounds.needed()) == ({}, 2)


def test_who_is_left_out_after_all_is_not_asked_for_consent_any_more():
    rounds = Rounds(RoundSettings(5, 2, 100.0, 1000.0), 0, ["a", "b"])
    rounds.handle(SiteExcused("a", "not approved yet", undecided=True), 1)
    assert rounds.handle(UpdateStored("b"), 2) is None
    assert rounds.needed() == 2
    assert rounds.handle(SiteExcused("a", "dropped"), 3) == CloseRound(1, ("b",))


def test_an_excused_site_may_still_deliver():
    events = [*three_sites(), (1, SiteExcused("c", "norm")), (2, UpdateStored("c")), (3, UpdateStored("a"))]
    rounds, actions = play(events)
    assert actions == []
    assert rounds.needed() == 2
    assert play([(4, UpdateStored("b"))], rounds)[1] == [(4, CloseRound(1, ("a", "b", "c")))]


def test_a_round_without_any_update_never_closes_however_many_are_excused():
    events = [*three_sites(), *((1, SiteExcused(site, "norm")) for site in "abc"), (1e6, Tick())]
    assert play(events)[1] == []


def test_a_site_whose_update_is_lost_is_awaited_again_while_it_is_present():
    rounds, _ = play([*three_sites(), (1, UpdateStored("a")), (1, UpdateStored("b")), (2, UpdateLost("a"))])
    assert (rounds.delivered, rounds.awaited) == (("b",), ("a", "c"))
    play([(3, SiteLeft("b")), (3, UpdateLost("b"))], rounds)
    assert (rounds.delivered, rounds.awaited) == ((), ("a", "c"))
    _, actions = play([(4, UpdateStored("a")), (5, UpdateStored("c"))], rounds)
    assert actions == [(5, CloseRound(1, ("a", "c")))]


def test_too_few_updates_keep_the_round_open_and_are_reported_once():
    events = [*three_sites(), (10, UpdateStored("a")), (200, Tick()), (201, Tick())]
    rounds, actions = play(events)
    assert actions == [(200, ReportOverdue(1, 1, 2))]
    assert play([(300, UpdateStored("b"))], rounds)[1] == [(300, CloseRound(1, ("a", "b")))]


def test_nothing_is_counted_before_a_site_delivers():
    assert play([*three_sites(), (10_000, Tick())])[1] == []


def test_an_update_stored_twice_counts_once():
    assert play([(0, SiteJoined("a")), (1, UpdateStored("a")), (2, UpdateStored("a"))])[1] == []


def test_nothing_closes_while_paused_and_the_rest_follows_afterwards():
    rounds = Rounds(RoundSettings(3, 2, 100.0, paused=True), 0)
    _, actions = play([*three_sites(), *((1, UpdateStored(site)) for site in "abc")], rounds)
    assert actions == []
    rounds.settings = SETTINGS
    assert rounds.handle(Tick(), 2) == CloseRound(1, ("a", "b", "c"))


def test_the_next_round_starts_empty_and_the_last_one_ends_it():
    rounds, _ = play([*three_sites(), (1, UpdateStored("a")), (2, HeadAdvanced(1))])
    assert (rounds.version, rounds.delivered) == (1, ())
    _, actions = play([(3, HeadAdvanced(3)), *((4, UpdateStored(site)) for site in "abc")], rounds)
    assert actions == []


EVENTS = st.one_of(
    st.sampled_from("abcd").map(SiteJoined),
    st.sampled_from("abcd").map(SiteHeard),
    st.sampled_from("abcd").map(SiteLeft),
    st.sampled_from("abcd").map(UpdateStored),
    st.builds(SiteExcused, st.sampled_from("abcd"), st.just("why")),
    st.just(Tick()),
)


@pytest.mark.parametrize("minimum", [1, 2, 4])
@given(st.lists(st.tuples(st.floats(0, 300), EVENTS), max_size=60))
def test_whatever_happens_only_delivered_sites_count_and_what_is_derived_agrees(minimum, timed):
    settings = RoundSettings(3, minimum, 100.0, 50.0)
    rounds = Rounds(settings, 0, "abcd")
    delivered, excused = set(), set()
    for now, event in sorted(timed, key=lambda item: item[0]):
        if isinstance(event, UpdateStored):
            delivered.add(event.site)
        if isinstance(event, SiteExcused):
            excused.add(event.site)
        action = rounds.handle(event, now)
        lacking = len(excused - delivered)
        assert rounds.needed() == (minimum if not lacking else max(1, min(minimum, 4 - lacking)))
        assert set(rounds.awaited) == {s for s in "abcd" if rounds.present(s)} - delivered - excused
        if isinstance(action, CloseRound):
            assert set(action.sites) == delivered
            assert len(action.sites) >= rounds.needed()
            assert action.round_number == rounds.version + 1
            rounds.handle(HeadAdvanced(rounds.version + 1), now)
            delivered, excused = set(), set()
    assert rounds.version <= settings.rounds
