"""How many answers a site gets, and when: a flood costs its sender's own turn, and nobody else's."""

import pytest

from fedmedclip.aggregator.requests import BURST, SECONDS_PER_ANSWER, Requests
from fedmedclip.protocol.messages import HeadRequest


def always():
    return True


@pytest.fixture
def requests():
    return Requests()


def answered(requests, site, now, times):
    """Ask so often in one moment; return how often it was answered."""
    count = 0
    for version in range(times):
        requests.put(site, HeadRequest(version))
        count += len(requests.due(now, always))
    return count


def test_a_burst_is_answered_at_once_and_then_one_request_in_each_interval(requests):
    assert answered(requests, "a", 0.0, 20) == BURST
    assert answered(requests, "a", 0.9 * SECONDS_PER_ANSWER, 20) == 0
    assert answered(requests, "a", SECONDS_PER_ANSWER, 20) == 1
    assert answered(requests, "a", 4 * SECONDS_PER_ANSWER, 20) == 3


def test_a_long_silence_saves_up_no_more_than_a_burst(requests):
    assert answered(requests, "a", 0.0, 20) == BURST
    assert answered(requests, "a", 1000 * SECONDS_PER_ANSWER, 20) == BURST


def test_a_flood_takes_nothing_from_another_site(requests):
    answered(requests, "a", 0.0, 100)
    assert answered(requests, "b", 0.0, 20) == BURST


def test_of_requests_that_wait_only_the_newest_is_answered(requests):
    answered(requests, "a", 0.0, BURST)
    for version in (3, 4, 5):
        requests.put("a", HeadRequest(version))
    assert requests.due(0.0, always) == []
    assert requests.due(SECONDS_PER_ANSWER, always) == [("a", HeadRequest(5))]
    assert requests.due(10 * SECONDS_PER_ANSWER, always) == []


def test_answers_are_made_in_the_order_of_the_requests_while_there_is_room(requests):
    for site in "cab":
        requests.put(site, HeadRequest(0))
    room = iter([True, True, False])
    assert [site for site, _ in requests.due(0.0, lambda: next(room))] == ["c", "a"]
    assert [site for site, _ in requests.due(0.0, always)] == ["b"]


def test_a_site_that_was_forgotten_begins_anew(requests):
    answered(requests, "a", 0.0, 20)
    requests.put("a", HeadRequest(1))
    requests.forget("a")
    assert requests.due(0.1, always) == []
    assert answered(requests, "a", 0.1, 20) == BURST
