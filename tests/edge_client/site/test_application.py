"""When a site asks to join, says that it cannot, and what it makes of the answer."""

from dataclasses import dataclass

import msgspec
import pytest

from fedmedclip.edge_client.site.application import ANSWER_SECONDS, DECLINE_AGAIN_SECONDS, Application
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.protocol.messages import Join, JoinAnswer
from fedmedclip.protocol.signature import fingerprint
from tests.edge_client.site.conftest import PLAN
from tests.protocol.moments import a_moment

IDENTITY = Identity("trial", "site-a", b"s" * 32, b"b" * 32, None, software="1.0")
LATE = 1000.0
ACCEPTED = JoinAnswer(fingerprint(IDENTITY.public_key), True, "")
REFUSED = JoinAnswer(fingerprint(IDENTITY.public_key), False, "not listed")


@dataclass
class Learner:
    samples: int = 10


@pytest.fixture
def application():
    return Application(IDENTITY, Learner())


def joining(version, cannot=""):
    return [Join(IDENTITY.public_key, IDENTITY.bundle_digest, 10, version, "1.0", cannot, a_moment(), 1)]


def test_a_site_asks_again_until_it_is_answered(application):
    assert application.due(3, LATE) == joining(3)
    assert application.due(3, LATE + ASK_AGAIN_SECONDS - 1) == []
    assert application.due(4, LATE + ASK_AGAIN_SECONDS) == joining(4)
    assert not application.joined
    application.take_answer(ACCEPTED, 4, LATE + 21)
    assert application.joined
    assert application.due(4, LATE + 1000) == []


def test_the_answer_to_another_key_is_not_this_sites(application):
    other = JoinAnswer(bytes(8), True, "")
    application.take_answer(other, 0, LATE)
    assert not application.joined


def test_a_refused_site_asks_again_after_a_while(application, caplog):
    application.due(0, LATE)
    application.take_answer(REFUSED, 0, LATE + 1)
    assert "the aggregator refused site-a: not listed" in caplog.text
    assert not application.joined
    assert application.due(0, LATE + 1 + DECLINE_AGAIN_SECONDS - 1) == []
    assert application.due(0, LATE + 1 + DECLINE_AGAIN_SECONDS) == joining(0)


def test_a_join_is_logged_once_and_each_connection_asks_anew(application, caplog):
    caplog.set_level("INFO")
    for _ in range(2):
        application.take_answer(ACCEPTED, 2, LATE)
    assert caplog.text.count("joined federation trial at version 2") == 1
    application.begin()
    assert not application.joined
    assert application.due(2, LATE + 1) == joining(2)


def test_a_site_that_has_joined_asks_once_more_where_the_aggregator_began_again(application):
    application.due(0, LATE)
    application.repeat()  # before it has joined that changes nothing
    application.take_answer(ACCEPTED, 0, LATE)
    assert application.due(0, LATE + 100) == []
    application.repeat()
    assert application.joined
    assert application.due(0, LATE + 100) == joining(0)
    application.take_answer(ACCEPTED, 0, LATE + 101)
    assert application.due(0, LATE + 200) == []


def test_who_shows_that_it_is_there_is_asked_at_once_unless_an_answer_may_be_on_its_way(application):
    application.hurry(LATE)
    assert application.due(0, LATE) == joining(0)
    application.hurry(LATE + 0.5)
    assert application.due(0, LATE + 0.5 + ANSWER_SECONDS - 0.1) == []
    assert application.due(0, LATE + 0.5 + ANSWER_SECONDS) == joining(0)
    application.hurry(LATE + 5)
    assert application.due(0, LATE + 5) == joining(0)
    application.hurry(LATE + 6)  # as long ago as an answer takes at most
    assert application.due(0, LATE + 6) == joining(0)


def test_hurry_never_puts_a_question_off(application):
    application.due(0, LATE)
    application.hurry(LATE + 0.5)
    application.hurry(LATE + 0.9)
    assert application.due(0, LATE + 0.5 + ANSWER_SECONDS) == joining(0)


def test_a_site_that_cannot_take_part_says_so_now_and_again(application, caplog):
    application.take_answer(ACCEPTED, 5, LATE)
    application.decline(PLAN, "no room" + "!" * 500)
    (said,) = application.due(5, LATE)
    assert (said.version, said.cannot) == (-1, ("no room" + "!" * 500)[:400])
    application.decline(PLAN, "no room")
    assert application.due(5, LATE + DECLINE_AGAIN_SECONDS - 1) == []
    assert len(application.due(5, LATE + DECLINE_AGAIN_SECONDS)) == 1
    assert caplog.text.count("cannot take part in run 1") == 1
    application.decline(msgspec.structs.replace(PLAN, number=2), "no room either")
    assert application.due(5, LATE + DECLINE_AGAIN_SECONDS + 1) == joining(-1, "no room either")
