"""What becomes of an update."""

from unittest.mock import ANY

import numpy as np
import pytest

from fedmedclip.aggregator.intake import Intake, Terms, Verdict
from fedmedclip.aggregator.store import StoredHead, StoredVersion
from fedmedclip.aggregator.uploads import ASK_AGAIN_SECONDS
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.messages import Block, BlockRequest, Update
from fedmedclip.protocol.objects import blocks_of, refer_to

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (16, 32), initial_bound=1.0),))
TERMS = Terms(version=2, finished=False, maximum_norm=3.0, maximum_staleness=0)
LARGE, SMALL = 1 << 17, 1024 + 128


def encoded(norm):
    """Return a delta with one value, its norm."""
    weight = np.zeros((16, 32), np.float32)
    weight[3, 4] = norm
    return encode_head(codec_named("lossless"), {"weight": weight}, SPECIFICATION).data


def in_blocks():
    data = encode_head(codec_named("lossless"), SPECIFICATION.initial(1), SPECIFICATION).data
    update = Update(3, 10, refer_to(data, SMALL), 0)
    return update, list(blocks_of(data, update.payload))


def verdict(number, *rest, **what):
    """A verdict on whatever update of a round."""
    return Verdict(number, ANY, *rest, **what)


LOOSE = Terms(2, False, 1000.0, 0)


@pytest.fixture
def intake(store):
    store.admit("a", b"k" * 32, 10, "0.2.0")
    for version in (1, 2, 3, 4):
        store.advance(StoredVersion(version, bytes(32), b"a change"), StoredHead(b"head", None, b""))
    return Intake(store, SPECIFICATION)


@pytest.mark.parametrize("norm", [0.0, 1.0, -3.0])
def test_an_update_of_the_open_round_counts_up_to_the_largest_norm(intake, store, norm):
    assert intake.update("a", Update(3, 10, encoded(norm), 0), TERMS, 0.0) == verdict(3)
    (stored,) = store.updates()
    assert (stored.samples, stored.payload) == (10, encoded(norm))


def test_a_larger_norm_is_refused_with_both_numbers(intake, store):
    found = intake.update("a", Update(3, 10, encoded(3.5), 0), TERMS, 0.0)
    assert found == verdict(3, "the update's norm is 3.5, at most 3 counts")
    assert store.stored_updates() == []


def test_an_update_that_counts_is_known_afterwards_whatever_is_sent(intake, store):
    intake.update("a", Update(3, 10, encoded(1.0), 0), TERMS, 0.0)
    for later in (TERMS, Terms(3, False, 3.0, 0), Terms(3, True, 3.0, 0)):
        assert intake.update("a", Update(3, 99, encoded(2.0), 0), later, 0.0) == verdict(3, known=True)
    (stored,) = store.updates()
    assert stored.samples == 10


@pytest.mark.parametrize("number", [1, 2])
def test_an_update_of_another_round_comes_too_late(intake, number):
    reason = f"round {number} is closed; version 2 is the newest"
    assert intake.update("a", Update(number, 10, encoded(1.0), 0), TERMS, 0.0) == verdict(
        number, reason, True
    )


def test_of_a_version_that_was_taken_back_nobody_knows_what_is_in_it_and_nothing_is_given_again(
    intake, store
):
    store.advance(StoredVersion(5, bytes(32), b""), StoredHead(b"head", None, b""))
    taken = Terms(5, False, 3.0, 2)
    assert intake.update("a", Update(5, 10, encoded(1.0), 0), taken, 0.0) == verdict(5, known=True)
    assert store.stored_updates() == []


def test_what_counted_long_ago_is_known_also_of_a_site_that_was_restored_from_a_backup(intake, store):
    store.counted.add(["a"], 1)
    store.counted.forget("b", 1)
    for site, known in (("a", True), ("b", False)):
        found = intake.update(site, Update(1, 10, encoded(1.0), 0), Terms(2, False, 3.0, 0), 0.0)
        assert (found.known, found.closed) == (known, not known)


def test_after_the_last_round_none_is_open(intake):
    found = intake.update("a", Update(3, 10, encoded(1.0), 0), Terms(2, True, 3.0, 0), 0.0)
    assert (found.closed, found.known) == (False, False)
    assert "version 2 is the last" in found.refusal
    found = intake.update("a", Update(2, 10, encoded(1.0), 0), Terms(2, True, 3.0, 0), 0.0)
    assert found.closed or found.known


def test_what_promises_too_much_is_refused_at_once(intake):
    found = intake.update("a", Update(3, 10, refer_to(bytes(1 << 20), SMALL), 0), TERMS, 0.0)
    assert "at most" in found.refusal
    assert not found.closed


def test_a_verdict_follows_from_the_last_block(intake, store):
    update, (*some, last) = in_blocks()
    assert intake.update("a", update, LOOSE, 0.0) is None
    assert [intake.block("a", block, LOOSE, 0.0) for block in some] == [None] * len(some)
    assert intake.block("a", last, LOOSE, 0.0) == verdict(3)
    assert store.stored_updates() == [("a", 3)]


def test_blocks_of_a_refused_update_leave_nothing(intake, store):
    update, blocks = in_blocks()
    intake.update("a", update, TERMS, 0.0)
    *_, found = [intake.block("a", block, TERMS, 0.0) for block in blocks]
    assert "norm" in found.refusal
    assert store.uploads() == {}


def test_blocks_that_came_damaged_twice_are_a_refusal(intake):
    update, blocks = in_blocks()
    intake.update("a", update, LOOSE, 0.0)
    damaged = [Block(block.object_digest, block.index, bytes(len(block.data))) for block in blocks]
    assert [intake.block("a", block, LOOSE, 0.0) for block in damaged] == [None] * len(blocks)
    *_, found = [intake.block("a", block, LOOSE, 0.0) for block in damaged]
    assert (found.round_number, found.closed) == (3, False)
    assert "SHA-256" in found.refusal


def test_a_block_that_does_not_fit_is_an_error_and_no_verdict(intake):
    update, (first, *_) = in_blocks()
    intake.update("a", update, LOOSE, 0.0)
    with pytest.raises(MessageError, match="expected"):
        intake.block("a", Block(first.object_digest, 0, b""), LOOSE, 0.0)


def test_what_stays_away_is_asked_for_until_the_round_is_closed(intake):
    update, blocks = in_blocks()
    intake.update("a", update, LOOSE, 0.0)
    request = BlockRequest(update.payload.digest, [block.index for block in blocks])
    assert intake.overdue(ASK_AGAIN_SECONDS) == [("a", request)]
    intake.clear()
    assert intake.overdue(10 * ASK_AGAIN_SECONDS) == []


def test_an_update_that_is_not_too_late_counts_as_late(intake, store):
    patient = Terms(4, False, 3.0, maximum_staleness=2)
    assert intake.update("a", Update(2, 10, encoded(1.0), 0), patient, 0.0).closed
    assert intake.update("a", Update(3, 10, encoded(1.0), 0), patient, 0.0) == verdict(3, late=True)
    assert intake.update("a", Update(5, 10, encoded(1.0), 0), patient, 0.0) == verdict(5)
    assert intake.update("a", Update(4, 10, encoded(1.0), 0), patient, 0.0).closed  # it was skipped
    assert store.stored_updates() == [("a", 3), ("a", 5)]


def test_who_was_not_drawn_is_refused_and_need_not_try_again(intake, store):
    found = intake.update("a", Update(3, 10, encoded(1.0), 0), TERMS, 0.0, drawn=False)
    assert found == verdict(3, "not drawn for round 3", closed=True)
    assert store.stored_updates() == []
