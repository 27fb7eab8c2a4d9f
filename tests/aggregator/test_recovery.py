"""Whom an aggregator that lost state asks for it, how long, and what it believes."""

import pytest

from fedmedclip.aggregator.recovery import (
    ASK_AGAIN_SECONDS,
    CARRIERS_BYTES,
    NEXT_MEMBER_SECONDS,
    Recovery,
)
from fedmedclip.protocol.codecs import maximum_encoded_bytes
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.messages import BlockRequest, ObjectReference, State, StateRequest
from fedmedclip.protocol.objects import blocks_of, refer_to

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (8, 4)),))
EVIDENCE = Evidence(b"plan", "head", b"carrier" * 400, bytes(128))
ENCODED = encode_evidence(EVIDENCE)
IN_BLOCKS = refer_to(ENCODED, 1024 + 128)
OWN = 2


@pytest.fixture
def recovery():
    return Recovery(SPECIFICATION)


def test_nobody_is_asked_while_nobody_is_ahead(recovery, caplog):
    recovery.tell("a", OWN, OWN)
    recovery.tell("b", -1, OWN)
    assert recovery.request(OWN, 0.0) is None
    assert caplog.text == ""


def test_the_member_with_the_newest_version_is_asked_and_the_loss_is_said_once(recovery, caplog):
    for site, version in (("a", 3), ("c", 5), ("b", 5), ("c", 5)):
        recovery.tell(site, version, OWN)
    assert recovery.request(OWN, 0.0) == ("c", StateRequest(OWN))
    for said in ("a holds version 3", "b holds version 5", "c holds version 5"):
        assert caplog.text.count(f"{said}, newer than version 2 here") == 1


def test_a_member_that_is_not_ahead_any_more_is_not_asked(recovery):
    recovery.tell("a", 3, OWN)
    recovery.tell("a", OWN, OWN)
    assert recovery.request(OWN, 0.0) is None


def test_a_member_that_knows_a_later_plan_is_asked_after_those_with_a_newer_version(recovery, caplog):
    recovery.tell_revision("a", 1, 1)
    assert recovery.request(OWN, 0.0) is None
    recovery.tell_revision("a", 5, 1)
    recovery.tell_revision("a", 5, 1)
    recovery.tell("b", 3, OWN)
    assert recovery.request(OWN, 0.0) == ("b", StateRequest(OWN))
    assert recovery.request(OWN, NEXT_MEMBER_SECONDS) == ("a", StateRequest(OWN))
    assert caplog.text.count("a knows revision 5 of the plan, later than revision 1 here") == 1
    assert recovery.take("a", State(ENCODED), NEXT_MEMBER_SECONDS + 1.0) == EVIDENCE
    assert recovery.later == {}
    recovery.tell_revision("a", 5, 1)
    recovery.tell_revision("a", 5, 5)
    assert recovery.request(OWN, 1000.0) is None


def test_a_silent_member_is_asked_again_and_then_makes_way_for_the_next(recovery, caplog):
    recovery.tell("a", 3, OWN)
    recovery.tell("b", 4, OWN)
    assert recovery.request(OWN, 100.0) == ("b", StateRequest(OWN))
    assert recovery.request(OWN, 100.0 + ASK_AGAIN_SECONDS - 1) is None
    assert recovery.request(OWN, 100.0 + ASK_AGAIN_SECONDS) == ("b", StateRequest(OWN))
    assert recovery.request(OWN, 100.0 + ASK_AGAIN_SECONDS + 1) is None
    assert recovery.request(OWN, 100.0 + NEXT_MEMBER_SECONDS - 1) == ("b", StateRequest(OWN))
    assert recovery.request(OWN, 100.0 + NEXT_MEMBER_SECONDS) == ("a", StateRequest(OWN))
    assert "b has not shown its version 4; asking another member" in caplog.text
    assert recovery.request(OWN, 100.0 + 2 * NEXT_MEMBER_SECONDS) is None


def test_evidence_is_taken_whole_or_in_blocks(recovery):
    recovery.tell("a", 3, OWN)
    recovery.request(OWN, 0.0)
    assert recovery.take("a", State(ENCODED), 1.0) == EVIDENCE
    assert recovery.request(OWN, 1000.0) is None
    recovery.tell("a", 3, OWN)
    recovery.request(OWN, 2.0)
    *earlier, last = blocks_of(ENCODED, IN_BLOCKS)
    assert earlier
    assert recovery.take("a", State(IN_BLOCKS), 3.0) is None
    assert [recovery.take("a", block, 3.0) for block in earlier] == [None] * len(earlier)
    assert recovery.take("a", last, 3.0) == EVIDENCE


def test_only_blocks_that_stay_away_are_asked_for_again(recovery):
    recovery.tell("a", 3, OWN)
    recovery.request(OWN, 0.0)
    first, *rest = blocks_of(ENCODED, IN_BLOCKS)
    recovery.take("a", State(IN_BLOCKS), 1.0)
    recovery.take("a", first, 15.0)
    assert recovery.request(OWN, 15.0 + ASK_AGAIN_SECONDS - 1) is None
    missing = BlockRequest(IN_BLOCKS.digest, [block.index for block in rest])
    assert recovery.request(OWN, 15.0 + ASK_AGAIN_SECONDS) == ("a", missing)
    # The answer to that repeats the promise; what has come stays.
    recovery.take("a", State(IN_BLOCKS), 36.0)
    assert recovery.request(OWN, 36.0 + ASK_AGAIN_SECONDS) == ("a", missing)


def test_what_was_not_asked_for_is_ignored(recovery):
    (first, *_) = blocks_of(ENCODED, IN_BLOCKS)
    assert recovery.take("a", State(ENCODED), 0.0) is None
    recovery.tell("a", 3, OWN)
    recovery.request(OWN, 0.0)
    assert recovery.take("b", State(ENCODED), 1.0) is None
    assert recovery.take("a", first, 1.0) is None
    other = refer_to(ENCODED[::-1], 1024 + 128)
    recovery.take("a", State(IN_BLOCKS), 1.0)
    for block in blocks_of(ENCODED[::-1], other):
        assert recovery.take("a", block, 1.0) is None
    assert [recovery.take("a", block, 2.0) for block in blocks_of(ENCODED, IN_BLOCKS)][-1] == EVIDENCE


def test_evidence_has_room_for_a_head_and_what_carried_it_and_no_more(recovery):
    recovery.tell("a", 3, OWN)
    recovery.request(OWN, 0.0)
    largest = maximum_encoded_bytes(SPECIFICATION) + CARRIERS_BYTES
    with pytest.raises(MessageError, match=f"at most {largest} fit"):
        recovery.take("a", State(ObjectReference(bytes(32), largest + 1, 1 << 20)), 1.0)
    assert recovery.take("a", State(ObjectReference(bytes(32), largest, 1 << 20)), 2.0) is None


def test_what_is_no_evidence_is_refused_and_its_sender_not_asked_again(recovery):
    recovery.tell("a", 3, OWN)
    recovery.tell("b", 4, OWN)
    recovery.request(OWN, 0.0)
    with pytest.raises(MessageError, match="malformed"):
        recovery.take("b", State(b"garbage"), 1.0)
    assert recovery.request(OWN, 1.0) == ("a", StateRequest(OWN))


def test_nobody_is_waited_for_who_is_not_ahead_any_more(recovery):
    recovery.tell("a", 3, OWN)
    recovery.tell("b", 6, OWN)
    recovery.request(OWN, 0.0)
    recovery.over(5, 1)
    assert recovery.ahead == {"b": 6}
    assert recovery.request(5, 1.0) is None  # b is asked already
    recovery.over(6, 1)
    assert recovery.ahead == {}
    assert recovery.take("b", State(ENCODED), 2.0) is None
    assert recovery.request(6, 1000.0) is None
