"""When an update is sent, sent again and settled, and when a refused round is trained again."""

import pytest

from fedmedclip.edge_client.site.delivery import (
    ANSWER_SECONDS,
    LONGEST_RETRY_SECONDS,
    RETRY_SECONDS,
    Delivery,
    blocks_asked_for,
)
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.state import OutgoingUpdate
from fedmedclip.protocol.messages import BlockRequest, Receipt, Update
from fedmedclip.protocol.objects import blocks_of, refer_to

SMALL, LARGE = 1024 + 128, 1 << 17
DATA = bytes(range(256)) * 10
LATE = 1000.0


@pytest.fixture
def delivery(state):
    return Delivery(state, LARGE)


def train(state, round_number):
    state.store_update(OutgoingUpdate(round_number, 10, DATA), b"private", b"residual", b"memory")


def mark_of(round_number, attempt=0, limit=LARGE):
    return Update(round_number, 10, refer_to(DATA, limit), attempt).mark


def accepted(round_number, **update):
    return Receipt(round_number, True, "", False, mark_of(round_number, **update))


def refused(round_number, **update):
    return Receipt(round_number, False, "norm", False, mark_of(round_number, **update))


def test_an_update_is_sent_again_until_it_is_settled(state, delivery):
    assert delivery.due(LATE) == []
    assert not delivery.under_way
    train(state, 1)
    assert delivery.under_way
    update = Update(1, 10, DATA, 0)
    assert delivery.due(LATE) == [update]
    assert delivery.due(LATE + ASK_AGAIN_SECONDS - 1) == []
    assert delivery.due(LATE + ASK_AGAIN_SECONDS) == [update]
    assert delivery.due(LATE + 2 * ASK_AGAIN_SECONDS - 1) == []
    assert delivery.take_receipt(accepted(1), LATE + 30)
    assert delivery.due(LATE + 100) == []


def test_a_new_connection_need_not_wait(state, delivery):
    train(state, 1)
    delivery.due(LATE)
    delivery.send_at_once()
    assert delivery.due(LATE + 1) == [Update(1, 10, DATA, 0)]


def test_an_update_whose_round_is_over_is_asked_for_soon_but_once(state, delivery):
    train(state, 4)
    assert delivery.due(100.0) != []
    delivery.hurry(3)
    assert delivery.due(100.0 + ANSWER_SECONDS) == []
    delivery.hurry(4)
    # The receipt may be on its way.
    assert delivery.due(99.9 + ANSWER_SECONDS) == []
    assert [message.round_number for message in delivery.due(100.0 + ANSWER_SECONDS)] == [4]
    assert delivery.due(100.0 + 2 * ANSWER_SECONDS) == []
    assert delivery.due(100.0 + ANSWER_SECONDS + ASK_AGAIN_SECONDS) != []


def test_blocks_are_sent_once_and_again_when_they_are_cut_otherwise(state):
    delivery = Delivery(state, SMALL)
    train(state, 1)
    reference = refer_to(DATA, SMALL)
    whole = [Update(1, 10, reference, 0), *blocks_of(DATA, reference)]
    assert len(whole) == 4
    assert delivery.due(LATE) == whole
    assert delivery.due(LATE + 20) == whole[:1]
    delivery.limit_messages(SMALL)
    assert delivery.due(LATE + 40) == whole[:1]
    delivery.limit_messages(SMALL + 512)
    assert len(delivery.due(LATE + 60)) == 3
    delivery.limit_messages(SMALL)
    assert delivery.take_receipt(accepted(1, limit=SMALL), LATE + 61)
    train(state, 2)
    assert len(delivery.due(LATE + 80)) == 4


def test_the_blocks_that_are_asked_for_are_sent(state):
    delivery = Delivery(state, SMALL)
    reference = refer_to(DATA, SMALL)
    request = BlockRequest(reference.digest, [2, 0])
    assert delivery.blocks(request) == []
    train(state, 1)
    blocks = list(blocks_of(DATA, reference))
    assert delivery.blocks(request) == [blocks[0], blocks[2]]
    assert delivery.blocks(BlockRequest(bytes(32), [0])) == []
    assert blocks_asked_for(DATA, LARGE, request) == []


def test_a_receipt_of_another_round_settles_nothing(state, delivery):
    assert not delivery.take_receipt(accepted(1), LATE)
    train(state, 2)
    for receipt in (accepted(1), refused(3)):
        assert not delivery.take_receipt(receipt, LATE)
    assert delivery.under_way
    assert state.load().trained_round == 2


def test_a_refused_round_is_trained_again_later_and_later(state, delivery):
    now, waits = LATE, []
    for attempt in range(9):
        assert delivery.may_train(now)
        train(state, 1)
        assert not delivery.may_train(now)
        assert delivery.take_receipt(refused(1, attempt=attempt), now)
        assert state.load().trained_round == 0
        began = now
        while not delivery.may_train(now):
            now += RETRY_SECONDS
        waits.append(now - began)
    assert waits == [min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2**count) for count in range(9)]


def test_an_accepted_update_forgets_the_refusals(state, delivery):
    for _ in range(3):
        delivery.train_later(LATE)
    assert not delivery.may_train(LATE + 4 * RETRY_SECONDS - 1)
    assert delivery.may_train(LATE + 4 * RETRY_SECONDS)
    train(state, 1)
    delivery.take_receipt(accepted(1), LATE)
    assert delivery.train_later(LATE) == RETRY_SECONDS
    assert delivery.train_later(LATE) == 2 * RETRY_SECONDS


def test_an_update_of_a_closed_round_is_settled_and_costs_no_waiting(state, delivery):
    train(state, 1)
    assert delivery.take_receipt(Receipt(1, False, "round 1 is closed", True, mark_of(1)), LATE)
    assert delivery.may_train(LATE)
    stored = state.load()
    assert (stored.trained_round, stored.residual) == (1, None)


def test_another_run_begins_without_the_refusals_of_the_one_before(delivery):
    delivery.train_later(LATE)
    delivery.train_later(LATE)
    delivery.begin_run()
    assert delivery.may_train(0.0)
    assert delivery.train_later(LATE) == RETRY_SECONDS


def test_an_old_refusal_does_not_make_a_site_train_again_though_it_sends_the_same_bits(state, delivery):
    train(state, 1)
    assert delivery.take_receipt(refused(1), LATE)
    train(state, 1)
    (update,) = delivery.due(LATE + 100)
    assert (update.payload, update.attempt) == (DATA, 1)
    assert not delivery.take_receipt(refused(1), LATE + 101)
    assert not delivery.take_receipt(accepted(1), LATE + 101)
    assert delivery.under_way
    assert delivery.take_receipt(accepted(1, attempt=1), LATE + 102)
    assert state.load().trained_round == 1
    train(state, 2)
    delivery.send_at_once()
    assert delivery.due(LATE + 103)[0].attempt == 0


def test_a_receipt_for_an_update_that_is_cut_otherwise_now_is_waited_for_once_more(state):
    delivery = Delivery(state, SMALL)
    train(state, 1)
    delivery.due(LATE)
    delivery.limit_messages(LARGE)
    assert not delivery.take_receipt(accepted(1, limit=SMALL), LATE)
    assert delivery.take_receipt(accepted(1), LATE)
