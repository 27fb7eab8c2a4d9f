from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.aggregator.round_logic import (
    CloseRound,
    HeadAdvanced,
    ReportOverdue,
    RoundSettings,
    RoundState,
    SiteJoined,
    SitePresence,
    Tick,
    UpdateStored,
    handle,
)

SETTINGS = RoundSettings(rounds=3, minimum_sites=2, timeout_seconds=100.0)


def play(events, state=None, settings=SETTINGS):
    """Feed (time, event) pairs; return the last state and the actions that came up, with their times."""
    state = state or RoundState(version=0)
    actions = []
    for now, event in events:
        state, action = handle(state, event, now, settings)
        if action is not None:
            actions.append((now, action))
    return state, actions


def three_sites():
    return [(0.0, event) for site in "abc" for event in (SiteJoined(site), SitePresence(site, True))]


def test_a_round_closes_when_everybody_online_has_delivered():
    _, actions = play(
        [*three_sites(), (1, UpdateStored("c")), (2, UpdateStored("a")), (3, UpdateStored("b"))]
    )
    assert actions == [(3, CloseRound(1, ("a", "b", "c")))]


def test_a_site_that_goes_offline_is_not_waited_for():
    events = [*three_sites(), (1, UpdateStored("a")), (2, UpdateStored("b")), (3, SitePresence("c", False))]
    assert play(events)[1] == [(3, CloseRound(1, ("a", "b")))]


def test_a_slow_site_is_waited_for_until_the_time_is_over():
    events = [*three_sites(), (10, UpdateStored("a")), (20, UpdateStored("b")), (109, Tick()), (110, Tick())]
    assert play(events)[1] == [(110, CloseRound(1, ("a", "b")))]


def test_too_few_updates_keep_the_round_open_and_are_reported_once():
    events = [*three_sites(), (10, UpdateStored("a")), (200, Tick()), (201, Tick())]
    state, actions = play(events)
    assert actions == [(200, ReportOverdue(1, 1))]
    assert play([(300, UpdateStored("b"))], state)[1] == [(300, CloseRound(1, ("a", "b")))]


def test_nothing_is_counted_before_a_site_delivers():
    assert play([*three_sites(), (10_000, Tick())])[1] == []


def test_an_update_stored_twice_counts_once():
    events = [
        (0, SiteJoined("a")),
        (0, SitePresence("a", True)),
        (1, UpdateStored("a")),
        (2, UpdateStored("a")),
    ]
    assert play(events)[1] == []


def test_the_next_round_starts_empty_and_the_last_one_ends_it():
    state, _ = play([*three_sites(), (1, UpdateStored("a")), (2, HeadAdvanced(1))])
    assert (state.version, state.delivered, state.first_delivery) == (1, frozenset(), None)
    _, actions = play([(3, HeadAdvanced(3)), *((4, UpdateStored(site)) for site in "abc")], state)
    assert actions == []


EVENTS = st.one_of(
    st.sampled_from("abcd").map(SiteJoined),
    st.builds(SitePresence, st.sampled_from("abcd"), st.booleans()),
    st.sampled_from("abcd").map(UpdateStored),
    st.just(Tick()),
)


@given(st.lists(st.tuples(st.floats(0, 300), EVENTS), max_size=40))
def test_a_round_never_closes_with_too_few_or_with_sites_that_did_not_deliver(timed):
    state = RoundState(version=0)
    delivered = set()
    for now, event in sorted(timed, key=lambda item: item[0]):
        if isinstance(event, UpdateStored):
            delivered.add(event.site)
        state, action = handle(state, event, now, SETTINGS)
        if isinstance(action, CloseRound):
            assert set(action.sites) == delivered
            assert len(action.sites) >= SETTINGS.minimum_sites
            assert action.round_number == state.version + 1
            state, _ = handle(state, HeadAdvanced(state.version + 1), now, SETTINGS)
            delivered = set()
    assert state.version <= SETTINGS.rounds
