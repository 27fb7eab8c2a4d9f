"""When a site asks to join, says that it cannot, and what it makes of the answer."""

from dataclasses import dataclass
from unittest.mock import ANY

import msgspec
import pytest

from fedmedclip.edge_client.site.application import ANSWER_SECONDS, DECLINE_AGAIN_SECONDS, Application
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.roles import Identity, PrivateSide
from fedmedclip.protocol.messages import Join, JoinAnswer, Moment, Secure
from fedmedclip.protocol.moments import Moments
from fedmedclip.protocol.signature import fingerprint
from tests.edge_client.site.conftest import PLAN

IDENTITY = Identity("trial", "site-a", b"s" * 32, b"b" * 32, None, software="1.0")
LATE = 1000.0
MARK = fingerprint(IDENTITY.public_key)
START = 1_800_000_000


def accepted(moment, revision=1):
    return JoinAnswer(MARK, True, "", moment, None, revision)


def refused(moment):
    return JoinAnswer(MARK, False, "not listed", moment, None, 1)


def outdated(moment, latest):
    """What is answered to an old request."""
    return JoinAnswer(MARK, False, "old", moment, latest, 1)


@dataclass
class Learner:
    samples: int = 10
    private: PrivateSide | None = None

    def privacy(self, plan):
        return self.private


@pytest.fixture
def application():
    return Asking()


class Asking(Application):
    """An application to a run with revision 1."""

    def __init__(self):
        self.stored = []
        self.learner = Learner()
        super().__init__(IDENTITY, self.learner, Moments(0, self.stored.append, lambda: START))

    def due(self, version, now, revision=1):
        return super().due(version, msgspec.structs.replace(PLAN, revision=revision), now)


def joining(version, cannot="", revision=1):
    # Whoever takes no part tells no number of images.
    return [
        Join(
            IDENTITY.public_key,
            IDENTITY.bundle_digest,
            1 if cannot else 10,
            version,
            "1.0",
            cannot,
            ANY,
            revision,
        )
    ]


def test_a_site_asks_again_until_it_is_answered(application):
    assert application.due(3, LATE) == joining(3)
    assert application.due(3, LATE + ASK_AGAIN_SECONDS - 1) == []
    assert application.due(4, LATE + ASK_AGAIN_SECONDS) == joining(4)
    assert not application.joined
    application.take_answer(accepted(application.asked), 4, LATE + 21)
    assert application.joined
    assert application.due(4, LATE + 1000) == []


def test_the_answer_to_another_key_is_not_this_sites(application):
    application.due(0, LATE)
    other = JoinAnswer(bytes(8), True, "", application.asked, None, 1)
    application.take_answer(other, 0, LATE)
    assert not application.joined


def test_a_refused_site_asks_again_after_a_while(application, caplog):
    application.due(0, LATE)
    application.take_answer(refused(application.asked), 0, LATE + 1)
    assert "the aggregator refused site-a: not listed" in caplog.text
    assert not application.joined
    assert application.due(0, LATE + 1 + DECLINE_AGAIN_SECONDS - 1) == []
    assert application.due(0, LATE + 1 + DECLINE_AGAIN_SECONDS) == joining(0)


def test_a_join_is_logged_once_and_each_connection_asks_anew(application, caplog):
    caplog.set_level("INFO")
    application.due(2, LATE)
    for _ in range(2):
        application.take_answer(accepted(application.asked), 2, LATE)
    assert caplog.text.count("joined federation trial at version 2") == 1
    application.begin()
    assert not application.joined
    assert application.due(2, LATE + 1) == joining(2)


def test_a_site_that_has_joined_asks_once_more_where_the_aggregator_began_again(application):
    application.due(0, LATE)
    application.repeat()  # before it has joined that changes nothing
    application.take_answer(accepted(application.asked), 0, LATE)
    assert application.due(0, LATE + 100) == []
    application.repeat()
    assert application.joined
    assert application.due(0, LATE + 100) == joining(0)
    application.take_answer(accepted(application.asked), 0, LATE + 101)
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
    application.due(5, LATE - 100)
    application.take_answer(accepted(application.asked), 5, LATE)
    application.decline(PLAN, "no room" + "!" * 500)
    (said,) = application.due(5, LATE)
    assert (said.version, said.cannot) == (-1, ("no room" + "!" * 500)[:400])
    application.decline(PLAN, "no room")
    assert application.due(5, LATE + DECLINE_AGAIN_SECONDS - 1) == []
    assert len(application.due(5, LATE + DECLINE_AGAIN_SECONDS)) == 1
    assert caplog.text.count("cannot take part in run 1") == 1
    application.decline(msgspec.structs.replace(PLAN, number=2), "no room either")
    assert application.due(5, LATE + DECLINE_AGAIN_SECONDS + 1) == joining(-1, "no room either")


def test_only_the_answer_to_a_request_of_this_connection_counts_and_once(application):
    application.due(0, LATE)
    first = application.asked
    application.take_answer(accepted(Moment(START, 0, 0)), 0, LATE)
    assert not application.joined
    application.take_answer(accepted(first), 0, LATE)
    assert application.joined
    application.begin()
    application.take_answer(accepted(first), 0, LATE)  # before it has asked
    application.due(0, LATE + 1)
    application.take_answer(accepted(first), 0, LATE + 1)
    application.take_answer(refused(first), 0, LATE + 1)
    assert not application.joined
    assert application.due(0, LATE + 1 + ASK_AGAIN_SECONDS) == joining(0)


def test_on_a_slow_path_the_answer_to_an_earlier_request_of_the_connection_counts_too(application):
    application.due(0, LATE)
    first = application.asked
    application.due(0, LATE + ASK_AGAIN_SECONDS)
    application.take_answer(accepted(first), 0, LATE + 21)
    assert application.joined
    application.take_answer(refused(first), 0, LATE + 22)
    assert application.joined
    application.take_answer(refused(application.asked), 0, LATE + 23)
    assert not application.joined


def test_who_was_restored_while_its_clock_stood_in_the_past_goes_on_after_what_it_had_said(application):
    application.due(0, LATE)
    application.take_answer(outdated(application.asked, Moment(START + 5, 3, 9)), 0, LATE)
    assert application.stored == [START, START + 6]
    assert application.due(0, LATE + 1) == joining(0)
    assert application.asked == Moment(START + 6, 0, 2)
    # A request that its own later words have overtaken is asked again when it is due.
    application.take_answer(outdated(application.asked, application.asked), 0, LATE + 2)
    assert application.stored == [START, START + 6]
    assert application.due(0, LATE + 3) == []


def test_a_plan_is_not_the_newest_where_the_answer_names_a_later_revision(
    application,
):
    application.due(0, LATE)
    assert application.knows(PLAN)
    application.take_answer(accepted(application.asked, revision=2), 0, LATE)
    assert not application.knows(PLAN)
    assert application.knows(msgspec.structs.replace(PLAN, revision=2))


def test_under_privacy_a_site_tells_no_exact_number_of_images(application):
    application.learner.private = PrivateSide(1, "", "", None)
    (said,) = application.due(0, LATE)
    assert said.samples == 1


def test_where_updates_are_summed_nobody_learns_how_many_images_a_site_has():
    application = Application(IDENTITY, Learner(), Moments(0, lambda number: None, lambda: START))
    summed = msgspec.structs.replace(PLAN, secure=Secure("dense", 10, 1000, 1.0, 3))
    (join,) = application.due(0, summed, LATE)
    assert join.samples == 1
