"""The coordinator where only some sites are drawn for a round, and where late updates count."""

from unittest.mock import ANY

import msgspec
import pytest

from fedmedclip.protocol import topics
from fedmedclip.protocol.messages import Announcement, JoinAnswer, Receipt
from fedmedclip.protocol.participation import lot_of
from tests.aggregator.test_coordinator_and_members import FEDERATION, PLAN, SETTINGS, Aggregator

TWO_OF_THREE = msgspec.structs.replace(SETTINGS, sites_per_round=2)


def lot(site, round_number):
    return lot_of(PLAN.seed, site, round_number)


def ranked(round_number):
    """Return the three sites, those with the smallest lots for a round first."""
    return sorted("abc", key=lambda site: lot(site, round_number))


@pytest.fixture
def aggregator(tmp_path):
    aggregator = Aggregator(tmp_path, settings=TWO_OF_THREE)
    for site in ranked(1):
        aggregator.join(site)
    yield aggregator
    aggregator.store.close()


def play_to(aggregator, version):
    while aggregator.version < version:
        aggregator.deliver(aggregator.version + 1, *aggregator.rounds.awaited)


def test_the_sites_with_the_smallest_lots_are_drawn_and_the_announcement_says_so(aggregator):
    for round_number in (1, 2, 3):
        *drawn, other = ranked(round_number)
        assert aggregator.rounds.awaited == tuple(sorted(drawn))
        announced = aggregator.coordinator.opening()[1].message
        assert [site for site in "abc" if lot(site, round_number) < announced.drawn_below] == sorted(drawn)
        (receipt,) = aggregator.deliver(round_number, other)
        assert receipt == Receipt(round_number, False, f"not drawn for round {round_number}", True, ANY)
        play_to(aggregator, round_number)


def test_a_draw_outlives_a_restart(aggregator):
    first, _, third = ranked(1)
    aggregator.join(first, cannot="broken")  # the third is drawn in its place
    assert aggregator.rounds.drawn(third)
    bound = aggregator.coordinator.global_head.drawn_below
    assert aggregator.store.drawn_below(1) == bound
    aggregator.start()
    assert aggregator.coordinator.global_head.drawn_below == bound
    assert aggregator.rounds.awaited == tuple("abc")


def test_whoever_is_drawn_later_is_called_and_nobody_else(aggregator):
    first, _, third = ranked(1)
    (call,) = aggregator.say(first, online=False)
    assert [item.topic for item in aggregator.sent] == [topics.down(FEDERATION, third)]
    assert isinstance(call, Announcement)
    assert (call.version, call.payload) == (0, None)
    assert lot(third, 1) < call.drawn_below
    assert aggregator.say(first) == []


def test_the_next_version_says_who_is_drawn_and_calls_nobody(aggregator):
    first, second, _ = ranked(1)
    aggregator.deliver(1, first)
    receipt, announced = aggregator.deliver(1, second)
    assert (receipt.accepted, announced.version) == (True, 1)
    assert [site for site in ranked(2) if lot(site, 2) < announced.drawn_below] == ranked(2)[:2]


def test_who_joins_with_a_lot_that_is_drawn_already_is_told(tmp_path):
    aggregator = Aggregator(tmp_path, settings=TWO_OF_THREE)
    first, second, third = ranked(1)
    aggregator.join(second, third)
    answer, call = aggregator.join(first)
    assert isinstance(answer, JoinAnswer)
    assert (call.version, call.payload) == (0, None)
    assert [item.topic for item in aggregator.sent] == [topics.down(FEDERATION, first)] * 2
    assert aggregator.rounds.awaited == tuple("abc")
    aggregator.store.close()


def test_who_joins_with_a_larger_lot_is_not_called(tmp_path):
    aggregator = Aggregator(tmp_path, settings=TWO_OF_THREE)
    first, second, third = ranked(1)
    aggregator.join(first, second)
    assert [type(message) for message in aggregator.join(third)] == [JoinAnswer]
    aggregator.store.close()


def test_without_a_draw_a_join_calls_nobody(tmp_path):
    aggregator = Aggregator(tmp_path)
    for site in "abc":
        assert [type(message) for message in aggregator.join(site)] == [JoinAnswer]
    assert aggregator.coordinator.opening()[1].message.drawn_below is None
    aggregator.store.close()


def test_a_late_update_counts_where_its_site_was_drawn_for_its_round(tmp_path):
    settings = msgspec.structs.replace(TWO_OF_THREE, maximum_staleness=2, minimum_sites=1)
    aggregator = Aggregator(tmp_path, settings=settings)
    first, second, third = ranked(1)
    aggregator.join(first, second, third)
    aggregator.deliver(1, first)
    aggregator.tick(100.0)
    assert aggregator.version == 1
    (refused,) = aggregator.deliver(1, third, now=101.0)
    assert (refused.reason, refused.closed) == ("not drawn for round 1", True)
    (receipt, *_) = aggregator.deliver(1, second, now=101.0)
    assert receipt.accepted
    assert aggregator.rounds.delivered == (second,)
    aggregator.start(102.0)
    assert aggregator.rounds.delivered == (second,)
    assert set(aggregator.rounds.awaited) >= set(ranked(2)[:2]) - {second}
    aggregator.store.close()
