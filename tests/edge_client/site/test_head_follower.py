"""A site follows the global head bit by bit, and asks for what it lacks."""

import numpy as np
import pytest

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS, SILENCE_SECONDS, HeadFollower
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta, compress
from fedmedclip.protocol.errors import CodecError, HeadError, MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.messages import Announcement, BlockRequest, HeadRequest, Snapshot
from fedmedclip.protocol.objects import blocks_of, refer_to

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (40, 60), initial_bound=0.1),))
SMALL, LARGE = 4096, 1 << 17


class Versions:
    """Version 0 and what the aggregator would announce after it."""

    def __init__(self, count, limit=LARGE):
        self.heads = [SPECIFICATION.initial(0)]
        self.announcements = [Announcement(0, head_digest(self.heads[0]), False, None, None)]
        self.payloads = [b""]
        self.limit = limit
        for version in range(1, count + 1):
            delta = {"weight": np.float32(0.1) * SPECIFICATION.initial(version)["weight"]}
            compressed = compress(codec_named("int8"), delta, None, b"", SPECIFICATION)
            self.heads.append(apply_delta(self.heads[-1], compressed.decoded, SPECIFICATION))
            self.payloads.append(compressed.encoded)
            reference = refer_to(compressed.encoded, limit)
            digest = head_digest(self.heads[-1])
            self.announcements.append(Announcement(version, digest, version == count, reference, None))

    def blocks(self, version):
        return list(blocks_of(self.payloads[version], self.announcements[version].payload))

    def encoded_snapshot(self, version):
        return encode_head(codec_named("lossless"), self.heads[version], SPECIFICATION).data

    def snapshot(self, version, limit=LARGE):
        payload = refer_to(self.encoded_snapshot(version), limit)
        announced = self.announcements[version]
        return Snapshot(version, announced.head_digest, announced.finished, payload, None)


@pytest.fixture
def installed():
    return []


@pytest.fixture
def follower(installed):
    return HeadFollower(
        SPECIFICATION, 0, SPECIFICATION.initial(0), lambda version, head: installed.append(version)
    )


def test_each_announcement_moves_to_the_same_bits(follower, installed):
    versions = Versions(3)
    for announcement in versions.announcements:
        assert follower.take(announcement, 0.0) == []
    assert installed == [1, 2, 3]
    assert head_digest(follower.head) == head_digest(versions.heads[3])


def test_an_old_or_repeated_announcement_changes_nothing(follower, installed):
    versions = Versions(2)
    for version in (1, 1, 0, 2, 1, 2):
        assert follower.take(versions.announcements[version], 0.0) == []
    assert follower.version == 2
    assert installed[:2] == [1, 2]


def test_a_version_that_was_announced_and_lost_before_it_came_is_waited_for_no_longer(follower, caplog):
    versions = Versions(2)
    lost = Announcement(1, bytes(32), False, None, None)
    assert follower.take(lost, 0.0) == [HeadRequest(0)]
    # A copy of before that.
    assert follower.take(versions.announcements[0], 1.0) == []
    now = 0.0
    for _ in range(2):
        assert follower.behind
        now += 2 * ASK_AGAIN_SECONDS
        while follower.tick(now) != [HeadRequest(0)]:
            now += ASK_AGAIN_SECONDS
        assert follower.take(versions.announcements[0], now) == []
    assert not follower.behind
    assert follower.newest_announced == 0
    assert caplog.text.count("version 1 was announced and is gone") == 1
    assert follower.tick(now + ASK_AGAIN_SECONDS) == []
    for announcement in versions.announcements:
        assert follower.take(announcement, now) == []
    assert follower.version == 2


def test_a_gap_is_asked_for_once_and_again_after_a_while(follower):
    versions = Versions(4)
    assert follower.take(versions.announcements[3], 0.0) == [HeadRequest(0)]
    assert follower.take(versions.announcements[4], 1.0) == []
    assert follower.tick(5.0) == []
    assert follower.tick(ASK_AGAIN_SECONDS) == [HeadRequest(0)]
    for version in (1, 2, 3, 4):
        follower.take(versions.announcements[version], 30.0)
    assert follower.version == 4
    assert follower.tick(60.0) == []


def test_a_snapshot_fills_any_gap(follower):
    versions = Versions(4)
    follower.take(versions.snapshot(4), 0.0)
    assert head_digest(follower.head) == head_digest(versions.heads[4])


def test_another_head_under_the_same_version_is_replaced_by_a_snapshot(follower):
    other = Announcement(0, bytes(32), False, None, None)
    assert follower.take(other, 0.0) == [HeadRequest(-1)]
    truth = {"weight": np.ones((40, 60), np.float32)}
    encoded = encode_head(codec_named("lossless"), truth, SPECIFICATION).data
    follower.take(Snapshot(0, head_digest(truth), False, refer_to(encoded, LARGE), None), 1.0)
    assert head_digest(follower.head) == head_digest(truth)


def test_a_delta_that_leads_elsewhere_is_not_installed(follower, installed):
    versions = Versions(1)
    announced = versions.announcements[1]
    lie = Announcement(1, bytes(32), False, announced.payload, None)
    assert follower.take(lie, 0.0) == [HeadRequest(-1)]
    assert (follower.version, installed) == (0, [])


def test_blocks_come_in_any_order_and_missing_ones_are_asked_for(follower):
    versions = Versions(2, limit=1500 + 128)
    first, second, *rest = versions.blocks(1)
    assert follower.add_block(first, 0.0) == []  # before its announcement: unknown, ignored
    follower.take(versions.announcements[1], 1.0)
    for block in reversed([second, *rest]):
        assert follower.add_block(block, 2.0) == []
    assert follower.tick(2.0 + ASK_AGAIN_SECONDS) == [BlockRequest(first.object_digest, [0])]
    follower.add_block(first, 30.0)
    assert follower.version == 1


def test_blocks_of_a_snapshot_that_is_gone_are_not_waited_for_for_ever(follower):
    versions = Versions(9)
    snapshot = versions.snapshot(8, limit=SMALL)
    first, *_ = blocks_of(versions.encoded_snapshot(8), snapshot.payload)
    follower.take(snapshot, 0.0)
    follower.add_block(first, 0.0)
    assert isinstance(follower.tick(20.0)[0], BlockRequest)
    assert follower.take(versions.announcements[9], 30.0) == []
    assert follower.tick(40.0) == [HeadRequest(0)]
    assert isinstance(follower.tick(60.0)[0], BlockRequest)
    follower.take(versions.snapshot(9), 61.0)
    assert follower.version == 9


def test_a_newer_announcement_meanwhile_is_asked_for_afterwards(follower):
    versions = Versions(2, limit=1500 + 128)
    follower.take(versions.announcements[1], 0.0)
    assert follower.take(versions.announcements[2], 0.0) == []
    requests = []
    for block in versions.blocks(1):
        requests += follower.add_block(block, 0.0)
    assert follower.version == 1
    assert requests == [HeadRequest(1)]


def test_a_long_silence_is_broken_by_asking(follower):
    follower.take(Versions(0).announcements[0], 0.0)
    assert follower.tick(SILENCE_SECONDS - 1) == []
    assert follower.tick(SILENCE_SECONDS) == [HeadRequest(0)]


def test_a_start_without_any_announcement_is_soon_asked_about(follower):
    assert follower.tick(5.0) == []
    assert follower.tick(5.0 + ASK_AGAIN_SECONDS - 1) == []
    assert follower.tick(5.0 + ASK_AGAIN_SECONDS) == [HeadRequest(0)]
    assert follower.tick(5.0 + 2 * ASK_AGAIN_SECONDS) == []


def test_what_cannot_be_a_head_is_refused_and_leaves_the_head(follower):
    before = head_digest(follower.head)
    with pytest.raises(MessageError, match="at most"):
        follower.take(Announcement(1, bytes(32), False, refer_to(bytes(1 << 20), SMALL), None), 0.0)
    with pytest.raises(CodecError):
        follower.take(Announcement(1, bytes(32), False, refer_to(b"\x02garbage", LARGE), None), 0.0)
    assert (follower.version, head_digest(follower.head)) == (0, before)


def test_a_version_without_delta_is_asked_for_and_comes_as_a_snapshot(follower, installed):
    versions = Versions(1)
    announced = versions.announcements[1]
    assert follower.take(Announcement(1, announced.head_digest, False, None, None), 0.0) == [HeadRequest(0)]
    assert follower.take(versions.snapshot(1), 1.0) == []
    assert installed == [1]


def test_many_deltas_that_were_asked_for_once_are_not_asked_for_again_while_they_come(follower):
    versions = Versions(6)
    assert follower.take(versions.announcements[6], 0.0) == [HeadRequest(0)]
    for version in range(1, 7):
        assert follower.take(versions.announcements[version], 0.1 * version) == []
    assert follower.version == 6


def test_deltas_that_stop_coming_are_asked_for_again(follower):
    versions = Versions(6)
    follower.take(versions.announcements[6], 0.0)
    follower.take(versions.announcements[1], 0.1)
    assert follower.tick(1.0) == []
    assert follower.tick(0.1 + ASK_AGAIN_SECONDS) == [HeadRequest(1)]


LATE = 1000.0
"""A monotonic clock rarely begins at 0."""


def test_times_count_from_what_was_heard_and_asked_last(follower):
    versions = Versions(4)
    assert follower.take(versions.announcements[3], LATE) == [HeadRequest(0)]
    assert follower.tick(LATE + ASK_AGAIN_SECONDS - 1) == []
    assert follower.tick(LATE + ASK_AGAIN_SECONDS) == [HeadRequest(0)]
    assert follower.tick(LATE + 2 * ASK_AGAIN_SECONDS - 1) == []
    assert follower.tick(LATE + 2 * ASK_AGAIN_SECONDS) == [HeadRequest(0)]


def test_a_silence_counts_from_the_last_announcement_and_is_broken_again_and_again(follower):
    versions = Versions(1)
    assert follower.tick(LATE) == []
    follower.take(versions.announcements[1], LATE + 100)
    assert follower.tick(LATE + SILENCE_SECONDS) == []
    assert follower.tick(LATE + 100 + SILENCE_SECONDS - 1) == []
    assert follower.tick(LATE + 100 + SILENCE_SECONDS) == [HeadRequest(1)]
    assert follower.tick(LATE + 100 + 2 * SILENCE_SECONDS - 1) == []
    assert follower.tick(LATE + 100 + 2 * SILENCE_SECONDS) == [HeadRequest(1)]


def test_blocks_that_trickle_in_put_off_the_question(follower):
    versions = Versions(1, limit=1500 + 128)
    *some, last = versions.blocks(1)
    follower.take(versions.announcements[1], LATE)
    assert follower.tick(LATE + ASK_AGAIN_SECONDS - 1) == []
    follower.add_block(some[0], LATE + 15)
    assert follower.tick(LATE + 15 + ASK_AGAIN_SECONDS - 1) == []
    missing = [block.index for block in (*some[1:], last)]
    assert follower.tick(LATE + 15 + ASK_AGAIN_SECONDS) == [BlockRequest(last.object_digest, missing)]


def test_a_repeated_announcement_keeps_the_blocks_that_came(follower, installed):
    versions = Versions(1, limit=1500 + 128)
    first, *rest = versions.blocks(1)
    for block in (first, *rest):
        follower.take(versions.announcements[1], 0.0)
        follower.add_block(block, 0.0)
    assert installed == [1]


def test_a_block_of_another_object_is_ignored(follower):
    versions = Versions(2, limit=1500 + 128)
    follower.take(versions.announcements[1], 0.0)
    for block in versions.blocks(2):
        assert follower.add_block(block, 0.0) == []
    assert follower.version == 0
    for block in versions.blocks(1):
        follower.add_block(block, 0.0)
    assert follower.version == 1
    assert follower.add_block(versions.blocks(1)[0], 1.0) == []


def test_a_site_is_behind_while_a_newer_version_was_announced(follower):
    versions = Versions(2)
    assert not follower.behind
    follower.take(versions.announcements[2], 0.0)
    assert follower.behind
    follower.take(versions.announcements[1], 0.0)
    assert follower.behind
    follower.take(versions.announcements[2], 0.0)
    assert not follower.behind


def test_a_site_without_any_head_is_behind_from_the_first_announcement_on(installed):
    versions = Versions(1)
    follower = HeadFollower(
        SPECIFICATION, -1, SPECIFICATION.initial(5), lambda version, head: installed.append(version)
    )
    assert follower.take(versions.announcements[0], 0.0) == [HeadRequest(-1)]
    assert follower.behind
    follower.take(versions.snapshot(0), 1.0)
    assert (installed, follower.behind) == ([0], False)
    assert head_digest(follower.head) == head_digest(versions.heads[0])


def test_an_older_snapshot_than_the_head_here_is_left_alone(follower, installed):
    versions = Versions(2)
    follower.take(versions.snapshot(2), 0.0)
    assert follower.take(versions.snapshot(1), 0.0) == []
    assert follower.take(Announcement(1, bytes(32), False, None, None), 0.0) == []
    assert installed == [2]


def test_a_head_that_differs_is_replaced_also_in_blocks(follower, installed):
    truth = SPECIFICATION.initial(3)
    encoded = encode_head(codec_named("lossless"), truth, SPECIFICATION).data
    snapshot = Snapshot(0, head_digest(truth), False, refer_to(encoded, SMALL), None)
    assert follower.take(snapshot, LATE) == []
    *some, last = blocks_of(encoded, snapshot.payload)
    for block in some:
        assert follower.add_block(block, LATE + 1) == []
    assert follower.tick(LATE + 1 + ASK_AGAIN_SECONDS) == [BlockRequest(last.object_digest, [last.index])]
    follower.add_block(last, LATE + 30)
    assert head_digest(follower.head) == head_digest(truth)
    assert installed == [0]
    assert follower.take(snapshot, LATE + 31) == []
    assert installed == [0]


def test_a_head_that_differs_is_asked_for_whole_until_it_comes(follower, installed):
    truth = SPECIFICATION.initial(3)
    encoded = encode_head(codec_named("lossless"), truth, SPECIFICATION).data
    announced = Announcement(0, head_digest(truth), False, None, None)
    assert follower.take(announced, LATE) == [HeadRequest(-1)]
    assert follower.tick(LATE + ASK_AGAIN_SECONDS - 1) == []
    for times in (1, 2, 3):
        assert follower.tick(LATE + times * ASK_AGAIN_SECONDS) == [HeadRequest(-1)]
    follower.take(Snapshot(0, announced.head_digest, False, refer_to(encoded, LARGE), None), LATE + 61)
    assert installed == [0]
    assert follower.tick(LATE + 100) == []
    assert follower.take(announced, LATE + 101) == []


def test_a_head_that_turns_out_to_be_the_announced_one_is_not_asked_for_again(follower):
    assert follower.take(Announcement(0, bytes(32), False, None, None), LATE) == [HeadRequest(-1)]
    announced = Announcement(0, head_digest(follower.head), False, None, None)
    assert follower.take(announced, LATE + 1) == []
    assert follower.tick(LATE + ASK_AGAIN_SECONDS) == []


def test_after_a_delta_that_leads_elsewhere_the_answer_is_waited_for(follower, installed):
    versions = Versions(2)
    lie = Announcement(1, bytes(32), False, versions.announcements[1].payload, None)
    assert follower.take(lie, LATE) == [HeadRequest(-1)]
    assert follower.take(versions.announcements[2], LATE + 1) == []
    assert follower.tick(LATE + ASK_AGAIN_SECONDS - 1) == []
    assert follower.tick(LATE + ASK_AGAIN_SECONDS) == [HeadRequest(-1)]
    follower.take(versions.snapshot(2), LATE + 30)
    assert installed == [2]
    assert follower.tick(LATE + 30 + ASK_AGAIN_SECONDS) == []


def test_a_new_gap_after_the_old_one_was_filled_is_asked_for_at_once(follower):
    versions = Versions(6)
    assert follower.take(versions.announcements[2], LATE) == [HeadRequest(0)]
    for version in (1, 2):
        assert follower.take(versions.announcements[version], LATE + 1) == []
    assert follower.take(versions.announcements[4], LATE + 2) == [HeadRequest(2)]
    for version in (3, 4):
        follower.take(versions.announcements[version], LATE + 3)
    assert follower.tick(LATE + 3 + ASK_AGAIN_SECONDS) == []


def test_a_head_with_a_value_that_is_none_is_not_installed(follower, installed):
    huge = {"weight": np.full((40, 60), 3e38, np.float32)}
    encoded = encode_head(codec_named("lossless"), huge, SPECIFICATION).data
    first = head_digest(apply_delta(follower.head, huge, SPECIFICATION))
    follower.take(Announcement(1, first, False, refer_to(encoded, LARGE), None), 0.0)
    assert installed == [1]
    with np.errstate(over="ignore"):
        infinite = head_digest(apply_delta(follower.head, huge, SPECIFICATION))
        with pytest.raises(HeadError, match="infinite"):
            follower.take(Announcement(2, infinite, False, refer_to(encoded, LARGE), None), 0.0)
    assert (installed, follower.version) == ([1], 1)


@pytest.mark.parametrize("payload", [b"\x02garbage", refer_to(bytes(5000), SMALL), None])
def test_a_difference_to_the_version_before_does_not_mend_a_head_that_differs(follower, installed, payload):
    follower.take(Versions(1).announcements[1], 0.0)
    other = Announcement(1, bytes(32), False, payload, None)
    assert follower.take(other, 1.0) == [HeadRequest(-1)]
    assert installed == [1]
