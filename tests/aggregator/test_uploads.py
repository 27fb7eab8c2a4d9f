"""Updates in blocks: kept on disk, taken up after a restart, asked for again, damaged at most once."""

import pytest

from fedmedclip.aggregator.uploads import ASK_AGAIN_SECONDS, UploadDamagedError, Uploads
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.messages import Block, BlockRequest, Update
from fedmedclip.protocol.objects import blocks_of, refer_to

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (40, 40)),))
LIMIT = 1024 + 128
DATA = bytes(range(256)) * 12
UPDATE = Update(1, 50, refer_to(DATA, LIMIT), 0)
FIRST, SECOND, THIRD = BLOCKS = list(blocks_of(DATA, UPDATE.payload))


@pytest.fixture
def uploads(store):
    return Uploads(store, SPECIFICATION)


def damaged(block):
    return Block(block.object_digest, block.index, bytes(len(block.data)))


def test_an_update_that_its_message_carries_is_complete_at_once(uploads, store):
    update = Update(1, 50, b"small", 0)
    assert uploads.begin("a", update, 0.0) == (update, b"small")
    assert store.uploads() == {}


def test_blocks_make_the_update_once_all_are_here(uploads):
    assert uploads.begin("a", UPDATE, 0.0) is None
    assert [uploads.add("a", block, 1.0) for block in (THIRD, FIRST)] == [None, None]
    assert uploads.add("a", SECOND, 1.0) == (UPDATE, DATA)
    assert uploads.add("a", SECOND, 1.0) is None


def test_a_repeated_message_keeps_the_blocks_and_another_update_forgets_them(uploads, store):
    uploads.begin("a", UPDATE, 0.0)
    uploads.add("a", FIRST, 0.0)
    uploads.begin("a", UPDATE, 1.0)
    assert store.uploads() == {"a": (UPDATE, {0: FIRST.data})}
    other = Update(1, 51, UPDATE.payload, 0)
    uploads.begin("a", other, 1.0)
    assert store.uploads() == {"a": (other, {})}
    assert [uploads.add("a", block, 1.0) for block in (SECOND, THIRD)] == [None, None]
    assert uploads.add("a", FIRST, 1.0) == (other, DATA)


def test_what_came_before_a_restart_is_not_needed_again(uploads, store):
    uploads.begin("a", UPDATE, 0.0)
    uploads.add("a", FIRST, 0.0)
    uploads.add("a", THIRD, 0.0)
    again = Uploads(store, SPECIFICATION)
    assert again.overdue(ASK_AGAIN_SECONDS) == [("a", BlockRequest(UPDATE.payload.digest, [1]))]
    assert again.begin("a", UPDATE, 21.0) is None
    assert again.add("a", SECOND, 21.0) == (UPDATE, DATA)


def test_an_update_that_was_complete_when_it_was_killed_is_complete_when_its_message_comes(uploads, store):
    uploads.begin("a", UPDATE, 0.0)
    for block in BLOCKS:
        store.add_block("a", block.index, block.data)
    assert Uploads(store, SPECIFICATION).begin("a", UPDATE, 1.0) == (UPDATE, DATA)


def test_blocks_of_others_and_blocks_that_do_not_fit_change_nothing(uploads, store):
    assert uploads.add("a", FIRST, 0.0) is None
    uploads.begin("a", UPDATE, 0.0)
    assert uploads.add("b", FIRST, 0.0) is None
    assert uploads.add("a", Block(bytes(32), 0, FIRST.data), 0.0) is None
    with pytest.raises(MessageError, match="block 3 of an object of 3 blocks"):
        uploads.add("a", Block(FIRST.object_digest, 3, b""), 0.0)
    assert store.uploads() == {"a": (UPDATE, {})}


def test_missing_blocks_are_asked_for_each_time_that_a_site_falls_silent(uploads):
    uploads.begin("a", UPDATE, 100.0)
    uploads.add("a", SECOND, 110.0)
    request = ("a", BlockRequest(UPDATE.payload.digest, [0, 2]))
    assert uploads.overdue(110.0 + ASK_AGAIN_SECONDS - 1) == []
    assert uploads.overdue(110.0 + ASK_AGAIN_SECONDS) == [request]
    assert uploads.overdue(110.0 + ASK_AGAIN_SECONDS + 1) == []
    assert uploads.overdue(110.0 + 2 * ASK_AGAIN_SECONDS) == [request]


def test_blocks_that_came_damaged_are_asked_for_once_more_also_after_a_restart(uploads, store):
    uploads.begin("a", UPDATE, 0.0)
    assert [uploads.add("a", damaged(block), 0.0) for block in BLOCKS] == [None] * 3
    assert store.uploads() == {"a": (UPDATE, {})}
    assert uploads.overdue(ASK_AGAIN_SECONDS) == [("a", BlockRequest(UPDATE.payload.digest, [0, 1, 2]))]
    again = Uploads(store, SPECIFICATION)
    assert [again.add("a", block, 1.0) for block in BLOCKS] == [None, None, (UPDATE, DATA)]


def test_an_update_that_came_damaged_twice_is_given_up(uploads, store):
    uploads.begin("a", UPDATE, 0.0)
    for block in BLOCKS:
        uploads.add("a", damaged(block), 0.0)
    for block in BLOCKS[:-1]:
        uploads.add("a", damaged(block), 1.0)
    with pytest.raises(UploadDamagedError, match=r"^a received object does not match the SHA-256") as refused:
        uploads.add("a", damaged(THIRD), 1.0)
    assert refused.value.update.round_number == 1
    assert store.uploads() == {}
    assert uploads.overdue(1000.0) == []
    assert uploads.begin("a", UPDATE, 2.0) is None
    assert [uploads.add("a", block, 2.0) for block in BLOCKS] == [None, None, (UPDATE, DATA)]


def test_nothing_is_asked_for_when_the_round_is_over(uploads):
    uploads.begin("a", UPDATE, 0.0)
    uploads.clear()
    assert uploads.overdue(1000.0) == []
    assert uploads.add("a", FIRST, 1000.0) is None


def test_stored_blocks_that_are_damaged_come_again_and_keep_no_aggregator_from_starting(store):
    store.begin_upload("a", UPDATE)
    store.add_block("a", 0, FIRST.data[:-1])
    uploads = Uploads(store, SPECIFICATION)
    assert store.uploads() == {}
    assert uploads.begin("a", UPDATE, 0.0) is None
    assert [uploads.add("a", block, 1.0) for block in BLOCKS][-1] == (UPDATE, DATA)
