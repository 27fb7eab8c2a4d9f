"""A site follows the global head bit by bit, and asks for what it lacks."""

import numpy as np
import pytest

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS, SILENCE_SECONDS, HeadFollower
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta, compress
from fedmedclip.protocol.errors import CodecError, MessageError
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
