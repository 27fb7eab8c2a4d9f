"""A site that sends nothing: it says so of each round, follows the head, and does not press."""

import pytest

from fedmedclip.protocol.messages import Abstain, BlockRequest, Update
from tests.edge_client.site.test_agent import Site

REASON = "this site has 9 training images, fewer than its least_images = 64"


@pytest.fixture
def site(tmp_path):
    found = Site(tmp_path)
    found.learner.withheld = REASON
    return found


def said(messages):
    return [(message.round_number, message.reason) for message in messages if isinstance(message, Abstain)]


def test_it_trains_says_so_and_goes_on_with_the_next_version(site):
    site.join()
    for round_number in (1, 2):
        messages = site.agent.tick(0.0)
        assert said(messages) == [(round_number, REASON)]
        assert not any(isinstance(message, Update) for message in messages)
        assert site.agent.tick(1.0) == []
        site.advance()
    assert site.learner.trained == [1, 2]
    assert site.agent.version == 2
    assert site.state.load().residual is None


def test_it_repeats_what_may_be_forgotten_and_nothing_else(site):
    site.join()
    assert said(site.agent.tick(0.0))
    spoken = [said(site.agent.tick(float(now))) for now in range(1, 3000)]
    assert 5 <= sum(map(bool, spoken)) <= 10  # every five minutes: nothing answers it
    site.hear_newest(3000.0)  # the aggregator began again, and may have forgotten
    assert said(site.agent.tick(3000.0)) == [(1, REASON)]
    site.agent.connected()
    site.agent.tick(3001.0)
    site.admit(3001.0)
    assert said(site.agent.tick(3001.0)) == [(1, REASON)]
    assert site.learner.trained == [1]


def test_killed_after_training_it_says_so_again_and_trains_no_second_time(site):
    site.join()
    site.agent.tick(0.0)
    private = site.state.load().private_head
    site.state.close()
    site.start()
    site.agent.tick(0.0)
    site.join()
    assert said(site.agent.tick(0.0)) == [(1, REASON)]
    assert site.learner.trained == [1]
    assert site.state.load().private_head == private


def test_nothing_is_said_of_a_run_that_is_over(site):
    site.join()
    for _ in range(3):
        site.agent.tick(0.0)
        site.advance()
    assert site.agent.finished
    assert said(site.agent.tick(10_000.0)) == []


def test_an_update_that_waits_is_not_sent_once_the_floor_is_raised(site):
    site.learner.withheld = ""
    site.join()
    messages = site.agent.tick(0.0)
    payload = next(message.payload for message in messages if isinstance(message, Update))
    site.state.close()
    site.learner.withheld = REASON
    site.start()
    site.agent.tick(0.0)
    site.join()
    assert site.state.outgoing_update() is None
    later = [message for now in (0.0, 30.0, 60.0) for message in site.agent.tick(now)]
    assert not any(isinstance(message, Update) for message in later)
    assert said(later) == [(1, REASON)]
    if not isinstance(payload, bytes):
        assert site.hear(BlockRequest(payload.digest, [0])) == []


def test_once_it_may_send_its_first_update_is_whole(site):
    site.join()
    site.agent.tick(0.0)
    site.advance()
    site.learner.withheld = ""
    assert [type(message) for message in site.agent.tick(0.0)] == [Update]


def test_its_version_shows_in_its_status(site):
    site.join()
    site.agent.tick(0.0)
    site.advance()
    before = site.agent.status(online=True)
    site.agent.tick(0.0)
    site.advance()
    assert site.agent.owes_status(before)
