"""The aggregator against sites that lie: what is refused costs nobody anything."""

from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.floods import STRANGERS
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.messages import (
    Announcement,
    Block,
    BlockRequest,
    HeadRequest,
    Join,
    JoinAnswer,
    Plan,
    Receipt,
    StateRequest,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import fingerprint, new_signing_key
from tests.protocol.moments import a_moment
from tests.simulation.federation.loopback import BUNDLE, FEDERATION, MESSAGE_LIMIT, Loopback

KEY = new_signing_key()


class Liar:
    """A site that sends what it likes, straight to the coordinator."""

    def __init__(self, folder, name="site-x", **settings):
        self.federation = Loopback(folder, sites=2, **settings)
        self.federation.agents.clear()
        self.coordinator = self.federation.coordinator
        self.name = name

    def send(self, message, key=KEY, topic=None, now=0.0):
        topic = topic or topics.up(FEDERATION, self.name)
        payload = seal(message, topic, key, self.federation.plan.identity)
        answers = self.coordinator.receive(topic, payload, now)
        return [answer.message for answer in answers]

    def join(self):
        return self.send(Join(KEY.public_key, BUNDLE, 100, -1, "", "", a_moment(), 1))

    def report(self, *, online):
        status = Status(fingerprint(KEY.public_key), online, 0, a_moment())
        return self.send(status, topic=topics.status(FEDERATION, self.name))

    def delta(self, scale=0.01):
        size = self.federation.plan.embedding_size
        head = initial_shared_head("fedmedclip", size, 5)
        scaled = {name: array * np.float32(scale) for name, array in head.items()}
        return encode_head(codec_named("int8"), scaled, self.federation.specification).data


@pytest.fixture
def liar(tmp_path):
    return Liar(tmp_path)


def test_a_message_before_joining_is_ignored(liar):
    assert liar.send(Update(1, 100, refer_to(liar.delta(), 1 << 17), 0)) == []


def test_invented_names_take_no_memory(liar):
    liar.join()
    liar.send(Update(1, 100, b"no head", 0), key=new_signing_key())
    for number in range(100):
        liar.name = f"stranger-{number}"
        liar.send(HeadRequest(0))
    assert liar.coordinator.refused_messages == {"site-x": 1, STRANGERS: 100}


def test_another_bundle_is_refused_with_both_digests(liar):
    (answer,) = liar.send(Join(KEY.public_key, bytes(32), 100, -1, "", "", a_moment(), 1))
    assert not answer.accepted
    assert bytes(32).hex()[:16] in answer.reason
    assert BUNDLE.hex()[:16] in answer.reason


def test_a_join_signed_with_another_key_is_ignored(liar):
    assert (
        liar.send(Join(KEY.public_key, BUNDLE, 100, -1, "", "", a_moment(), 1), key=new_signing_key()) == []
    )


def test_an_update_counts_once_and_is_confirmed_each_time(liar):
    liar.join()
    update = Update(1, 100, refer_to(liar.delta(), 1 << 17), 0)
    assert liar.send(update) == [Receipt(1, True, "", False, ANY)]
    assert liar.send(update) == [Receipt(1, True, "", False, ANY)]
    assert liar.send(Update(1, 10**6, refer_to(liar.delta(0.02), 1 << 17), 0)) == [
        Receipt(1, True, "", False, ANY)
    ]
    (stored,) = liar.federation.store.updates()
    assert stored.samples == 100


@pytest.mark.parametrize("round_number", [2, 3, 10**6])
def test_an_update_from_a_version_that_is_not_here_is_not_counted_but_asked_for(liar, round_number):
    liar.join()
    assert liar.send(Update(round_number, 100, refer_to(liar.delta(), 1 << 17), 0)) == []
    assert liar.coordinator.rounds.delivered == ()
    asked = [item.message for item in liar.coordinator.tick(1.0)]
    assert asked == [StateRequest(0)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "identifier missing"),
        (b"\x02garbage", "values of 103 bits"),
        (b"\x01\x08\x01", "damaged"),
        (b"\xffgarbage", "not known"),
        (b"\x04garbage", "whole"),
    ],
)
def test_a_payload_that_is_no_head_is_refused(liar, payload, reason):
    liar.join()
    (receipt,) = liar.send(Update(1, 100, refer_to(payload, 1 << 17), 0))
    assert not receipt.accepted
    assert reason in receipt.reason
    assert liar.federation.store.stored_updates() == []


def test_an_update_that_would_drown_the_others_is_refused(liar):
    liar.join()
    (receipt,) = liar.send(Update(1, 100, refer_to(liar.delta(1e6), 1 << 17), 0))
    assert not receipt.accepted
    assert "at most 1e+03 counts" in receipt.reason


def test_a_site_that_promises_too_much_is_refused(liar):
    liar.join()
    (receipt,) = liar.send(Update(1, 100, refer_to(bytes(1 << 20), MESSAGE_LIMIT), 0))
    assert "at most" in receipt.reason


def test_damaged_blocks_are_asked_for_again_once_and_then_refused(liar):
    liar.join()
    liar.report(online=True)
    data = liar.delta().ljust(2 * MESSAGE_LIMIT, b"x")
    reference = refer_to(data, MESSAGE_LIMIT)
    damaged = [
        Block(block.object_digest, block.index, bytes(len(block.data)))
        for block in blocks_of(data, reference)
    ]
    assert liar.send(Update(1, 100, reference, 0)) == []
    assert [liar.send(block) for block in damaged] == [[], [], []]
    (request,) = liar.coordinator.tick(20.0)
    assert request.message == BlockRequest(reference.digest, [0, 1, 2])
    *none, (receipt,) = [liar.send(block, now=20.0) for block in damaged]
    assert none == [[], []]
    assert (receipt.round_number, receipt.accepted) == (1, False)
    assert "SHA-256" in receipt.reason
    assert liar.federation.store.uploads() == {}
    assert liar.federation.store.stored_updates() == []


@pytest.mark.parametrize("stored", [2, 3])
def test_blocks_damaged_on_the_aggregators_disk_cost_no_update(liar, stored):
    """A restart reads them back; `stored` 3: killed before the last block was acknowledged."""
    liar.join()
    liar.report(online=True)
    size = liar.federation.plan.embedding_size
    delta = initial_shared_head("fedmedclip", size, 5)
    data = encode_head(codec_named("lossless"), delta, liar.federation.specification).data
    reference = refer_to(data, 2048)
    update, blocks = Update(1, 100, reference, 0), list(blocks_of(data, reference))
    assert len(blocks) == 3
    assert liar.send(update) == []
    for block in blocks[:stored]:
        liar.federation.store.add_block(liar.name, block.index, bytes(len(block.data)))
    liar.federation.kill("aggregator")
    liar.coordinator = liar.federation.coordinator
    assert liar.send(update, now=1.0) == []
    assert liar.send(blocks[2], now=1.0) == []
    (request,) = liar.coordinator.tick(21.0)
    missing = request.message.missing
    assert missing[:2] == [0, 1]
    answers = [liar.send(blocks[index], now=21.0) for index in missing]
    assert answers[-1] == [Receipt(1, True, "", False, ANY)]
    (counted,) = liar.federation.store.updates()
    assert counted.payload == data


def test_blocks_that_stay_away_are_asked_for_while_the_site_is_there(liar):
    liar.join()
    liar.report(online=True)
    data = liar.delta().ljust(2 * MESSAGE_LIMIT, b"x")
    reference = refer_to(data, MESSAGE_LIMIT)
    liar.send(Update(1, 100, reference, 0))
    first, *_ = blocks_of(data, reference)
    liar.send(first, now=5.0)
    assert liar.coordinator.tick(20.0) == []
    (request,) = liar.coordinator.tick(26.0)
    assert request.message == BlockRequest(reference.digest, [1, 2])
    assert request.topic == topics.down(FEDERATION, "site-x")
    liar.send(Update(1, 100, reference, 0), now=45.0)  # repeating the promise does not put off the question
    assert [item.message for item in liar.coordinator.tick(46.0)] == [request.message]
    liar.report(online=False)
    assert liar.coordinator.tick(66.0) == []


def test_objects_that_are_not_ours_are_not_sent(liar):
    liar.join()
    assert liar.send(BlockRequest(bytes(32), [0])) == []


def test_requests_for_impossible_versions_get_a_snapshot(liar):
    liar.join()
    for version in (-1, 999):
        answers = liar.send(HeadRequest(version))
        assert type(answers[0]).__name__ == "Snapshot"
    assert isinstance(liar.send(HeadRequest(0))[0], Announcement)


@pytest.mark.parametrize(
    "message",
    [
        Receipt(1, True, "", False, bytes(8)),
        JoinAnswer(bytes(8), True, "", a_moment(), None, 1),
        Announcement(1, bytes(32), False, None, None),
        Plan(bytes(16), bytes(32), "m", bytes(32), 8, 3, 1, "int8", "int8", {}, 1, 1, False, 1.0, None),
    ],
    ids=lambda message: type(message).__name__,
)
def test_the_aggregators_own_messages_are_not_taken_from_a_site(liar, message):
    liar.join()
    assert liar.send(message) == []
    assert liar.coordinator.global_head.version == 0


def test_names_that_are_none_do_no_harm(liar):
    for topic in (f"fmc1/{FEDERATION}/up/BAD NAME", f"fmc1/{FEDERATION}/up/", f"fmc1/{FEDERATION}/status/"):
        assert liar.send(Join(KEY.public_key, BUNDLE, 1, -1, "", "", a_moment(), 1), topic=topic) == []
        assert liar.coordinator.receive(topic, b"", 0.0) == []


def test_listed_enrolment_admits_the_listed_key_only(tmp_path):
    liar = Liar(tmp_path / "listed", enrolment="listed", listed={"site-x": KEY.public_key.hex()})
    assert liar.join()[0].accepted
    other = Liar(tmp_path / "other", enrolment="listed", listed={"site-y": KEY.public_key.hex()})
    assert "not on the aggregator's list" in other.join()[0].reason


def test_a_status_with_another_key_is_not_believed(liar):
    liar.join()
    topic = topics.status(FEDERATION, "site-x")
    liar.send(Status(fingerprint(KEY.public_key), True, 0, a_moment()), topic=topic)
    assert liar.coordinator.rounds.present("site-x")
    liar.send(Status(bytes(8), False, 0, a_moment()), key=new_signing_key(), topic=topic)
    assert liar.coordinator.rounds.present("site-x")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["site-x", "site-y", "#", ""]), payload=st.binary(max_size=200))
def test_random_bytes_from_anybody_leave_the_federation_as_it_was(liar, name, payload):
    liar.join()
    for data in (payload, b"FM\x02" + payload):
        assert liar.coordinator.receive(topics.up(FEDERATION, name), data, 0.0) == []
    assert liar.federation.store.stored_updates() == []
