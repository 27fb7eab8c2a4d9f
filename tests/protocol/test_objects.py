import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.envelope import NO_IDENTITY, OVERHEAD_BYTES, seal
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.link.limits import LEAST_PAYLOAD_BYTES
from fedmedclip.protocol.messages import MAXIMUM_BLOCKS, BlockRequest, ObjectReference, Update
from fedmedclip.protocol.objects import REQUESTED_AT_ONCE, Assembly, block_count, blocks_of, refer_to
from fedmedclip.protocol.signature import new_signing_key

LIMIT = 4096


@given(st.integers(1, 40_000), st.randoms(use_true_random=False))
def test_blocks_in_any_order_and_repeated_give_the_object(size, random):
    data = random.randbytes(size)
    reference = refer_to(data, LIMIT)
    assembly = Assembly(reference, 40_000)
    blocks = [*blocks_of(data, reference)] * 2
    random.shuffle(blocks)
    for block in blocks:
        assembly.add(block.index, block.data)
    assert assembly.complete
    assert assembly.data() == data


def test_what_is_missing_is_known_and_can_be_sent_alone():
    data = bytes(range(256)) * 100
    reference = refer_to(data, LIMIT)
    assembly = Assembly(reference, len(data))
    for block in blocks_of(data, reference):
        if block.index not in (1, 4):
            assembly.add(block.index, block.data)
    assert assembly.request() == BlockRequest(reference.digest, [1, 4])
    again = list(blocks_of(data, reference, [4, 1, 4, 9999]))
    assert [block.index for block in again] == [1, 4]
    for block in again:
        assembly.add(block.index, block.data)
    assert assembly.data() == data


@pytest.mark.parametrize("size", [LIMIT - OVERHEAD_BYTES, LIMIT - OVERHEAD_BYTES + 1, 3 * LIMIT])
def test_every_message_fits_the_limit(size):
    key = new_signing_key()
    data = bytes(size)
    reference = refer_to(data, LIMIT)
    messages = [Update(10**6, 10**9, reference, 0), *blocks_of(data, reference)]
    topic = f"fmc1/{'f' * 32}/up/{'s' * 32}"
    assert max(len(seal(message, topic, key, NO_IDENTITY)) for message in messages) <= LIMIT


def test_an_object_larger_than_expected_is_refused_at_once():
    with pytest.raises(MessageError, match="at most 100 fit"):
        Assembly(refer_to(bytes(101), LIMIT), 100)


def test_blocks_that_do_not_fit_or_lie_are_refused():
    data = bytes(10_000)
    reference = refer_to(data, LIMIT)
    assembly = Assembly(reference, 10_000)
    with pytest.raises(MessageError, match="of 3 blocks"):
        assembly.add(3, b"")
    with pytest.raises(MessageError, match="expected 3968"):
        assembly.add(0, b"short")
    for index in range(block_count(reference)):
        assembly.add(index, b"\x01" * min(reference.block_size, 10_000 - index * reference.block_size))
    with pytest.raises(MessageError, match="SHA-256"):
        assembly.data()
    assert assembly.request() == BlockRequest(reference.digest, [0, 1, 2])


def test_one_request_names_so_many_blocks_that_it_fits_any_message_and_the_next_the_rest():
    data = bytes(3 * LEAST_PAYLOAD_BYTES * REQUESTED_AT_ONCE)
    reference = refer_to(data, LEAST_PAYLOAD_BYTES)
    assembly = Assembly(reference, len(data))
    rounds = 0
    while (request := assembly.request()) is not None:
        rounds += 1
        sealed = seal(request, f"fmc1/{'f' * 32}/up/{'s' * 32}", new_signing_key(), NO_IDENTITY)
        assert len(sealed) <= LEAST_PAYLOAD_BYTES
        for block in blocks_of(data, reference, request.missing):
            assembly.add(block.index, block.data)
    assert rounds == 4
    assert assembly.data() == data


def test_what_its_message_carries_is_complete_and_has_no_blocks():
    payload = refer_to(b"small", LIMIT)
    assembly = Assembly(payload, 5)
    assert (payload, block_count(payload), list(blocks_of(b"small", payload, [0]))) == (b"small", 0, [])
    assert assembly.complete
    assert (assembly.data(), assembly.digest, assembly.request()) == (b"small", None, None)
    with pytest.raises(MessageError, match="block 0 of an object of 0 blocks"):
        assembly.add(0, b"")


def test_what_its_message_carries_may_be_as_large_as_expected_and_no_larger():
    with pytest.raises(MessageError, match="an object of 6 bytes is announced, at most 5 fit"):
        Assembly(b"larger", 5)


def test_blocks_at_and_past_the_end_are_not_sent():
    data = bytes(10_000)
    assert [block.index for block in blocks_of(data, refer_to(data, LIMIT), [2, 3, 4])] == [2]


def test_an_object_is_named_by_its_digest_and_asked_for_until_it_is_whole():
    data = bytes(10_000)
    reference = refer_to(data, LIMIT)
    assembly = Assembly(reference, 10_000)
    assert assembly.digest == reference.digest
    for block in blocks_of(data, reference):
        assert not assembly.complete
        assert assembly.request().missing[0] == block.index
        assembly.add(block.index, block.data)
    assert (assembly.complete, assembly.request()) == (True, None)


def test_an_object_of_more_blocks_than_a_receiver_counts_is_refused():
    size = 1024 * MAXIMUM_BLOCKS
    Assembly(ObjectReference(bytes(32), size, 1024), size + 1)
    with pytest.raises(MessageError, match=f"{MAXIMUM_BLOCKS + 1} blocks is announced, at most"):
        Assembly(ObjectReference(bytes(32), size + 1, 1024), size + 1)


def test_the_last_block_is_as_long_as_what_is_left_and_the_first_that_came_stands():
    data = bytes(range(250)) * 40
    reference = refer_to(data, LIMIT)
    assembly = Assembly(reference, len(data))
    *_, last = blocks_of(data, reference)
    for wrong in (last.data + b"x", last.data[:-1], bytes(reference.block_size)):
        with pytest.raises(MessageError, match=f"expected {len(last.data)}"):
            assembly.add(last.index, wrong)
    for block in blocks_of(data, reference):
        assembly.add(block.index, block.data)
        assembly.add(block.index, bytes(len(block.data)))
    assert assembly.data() == data
