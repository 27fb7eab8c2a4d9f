"""The coordinator goes by the roster: who is a member, with which key, and how much it weighs."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.register import Register
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.messages import (
    Announcement,
    BlockRequest,
    HeadRequest,
    Join,
    JoinAnswer,
    Receipt,
    RenewalRequest,
    State,
    StateRequest,
    Update,
)
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.roster.chain import found
from fedmedclip.protocol.roster.entries import Admitted, KeyRotated, Revoked, WeightLimited
from fedmedclip.protocol.signature import new_signing_key
from tests.protocol.moments import a_moment
from tests.simulation.federation.loopback import BUNDLE, FEDERATION, Loopback

A, B = new_signing_key(), new_signing_key()
KEYS = {"hospital-a": A, "hospital-b": B}


class Centre:
    """A coordinator with a roster of two members, and what they send it."""

    def __init__(self, folder) -> None:
        self.key = new_signing_key()
        self.register = Register(found(FEDERATION, bytes(32), self.key, 1))
        for site, key in KEYS.items():
            self.append(Admitted(site, key.public_key, bytes(32), 9, 500, "her"))
        keys = SimpleNamespace(aggregator_key=self.key, keys={})
        self.federation = Loopback(folder, sites=2, register=self.register, keys_of=keys)
        self.coordinator = self.federation.coordinator

    def append(self, entry, new_key=None) -> None:
        self.register.roster = self.register.roster.with_entry(entry, self.key, 2, new_key)
        self.key = new_key or self.key

    def send(self, site, message, key=None):
        topic = topics.up(FEDERATION, site)
        payload = seal(message, topic, key or KEYS[site], self.coordinator.plan.identity)
        return [item.message for item in self.coordinator.receive(topic, payload, 0.0)]

    def join(self, site, key=None):
        key = key or KEYS[site]
        joins = Join(key.public_key, BUNDLE, 100, -1, "", "", a_moment(), 1)
        answers = self.send(site, joins, key)
        return next(answer for answer in answers if isinstance(answer, JoinAnswer))

    def update(self, site, samples=100, scale=0.01):
        head = initial_shared_head("fedmedclip", self.federation.plan.embedding_size, 5)
        scaled = {name: array * np.float32(scale) for name, array in head.items()}
        data = encode_head(codec_named("int8"), scaled, self.federation.specification).data
        return self.send(site, Update(1, samples, refer_to(data, 1 << 17), 0))


@pytest.fixture
def centre(tmp_path):
    centre = Centre(tmp_path)
    for site in KEYS:
        assert centre.join(site).accepted
    return centre


def test_only_members_join_and_with_the_key_in_the_roster(tmp_path) -> None:
    centre = Centre(tmp_path)
    assert centre.join("hospital-a").accepted
    answer = centre.join("hospital-b", new_signing_key())
    assert not answer.accepted
    assert "hospital-b" in answer.reason
    answer = centre.join("hospital-c", new_signing_key())
    assert not answer.accepted
    assert "not in the federation's roster" in answer.reason


def test_the_next_message_of_who_is_revoked_is_refused_and_others_are_not_disturbed(centre) -> None:
    (receipt,) = centre.update("hospital-a")
    assert receipt.accepted
    centre.append(Revoked("hospital-a", "left the study"))
    # Before anybody has looked at the folder's change: its very next message.
    (refused,) = centre.update("hospital-a", scale=0.02)
    assert isinstance(refused, Receipt)
    assert not refused.accepted
    assert "left the study" in refused.reason
    assert centre.send("hospital-a", HeadRequest(-1)) == []
    assert "revoked by the coordinator" in centre.join("hospital-a").reason
    assert centre.coordinator.rounds.members == {"hospital-b"}
    assert centre.federation.store.stored_updates() == []
    (receipt,) = centre.update("hospital-b")
    assert receipt.accepted
    assert centre.coordinator.rounds.delivered == ("hospital-b",)


def test_the_stored_update_of_who_is_revoked_does_not_count(centre) -> None:
    centre.update("hospital-a")
    centre.append(Revoked("hospital-a", "left the study"))
    centre.coordinator.follow_membership(1.0)
    assert centre.federation.store.stored_updates() == []
    assert centre.coordinator.rounds.members == {"hospital-b"}
    assert centre.coordinator.rounds.awaited == ("hospital-b",)


def test_who_comes_back_with_another_key_goes_on_with_that(centre) -> None:
    centre.append(Revoked("hospital-a", "its key was lost"))
    centre.coordinator.follow_membership(1.0)
    key = new_signing_key()
    centre.append(Admitted("hospital-a", key.public_key, bytes(32), 9, 500, "her"))
    centre.coordinator.follow_membership(2.0)
    assert not centre.join("hospital-a", A).accepted
    assert centre.join("hospital-a", key).accepted


def test_no_site_weighs_more_than_was_approved(centre) -> None:
    """Two updates of opposite signs: where one claims a billion images, the mean is still near zero."""
    centre.append(WeightLimited("hospital-b", 500))
    before = centre.federation.store.head().head
    centre.update("hospital-a", samples=500, scale=0.01)
    centre.update("hospital-b", samples=10**9, scale=-0.01)
    assert centre.coordinator.global_head.version == 1
    after = centre.federation.store.head().head
    moved = np.frombuffer(after, "<f4") - np.frombuffer(before, "<f4")
    assert np.abs(moved).max() < 1e-4


def test_blocks_of_the_roster_are_asked_for_as_those_of_heads(centre) -> None:
    for samples in range(1, 60):
        centre.append(WeightLimited("hospital-a", samples))
    (notice,) = centre.coordinator.roster_notice()
    reference = notice.message.payload
    blocks = centre.send("hospital-a", BlockRequest(reference.digest, [1, 0]))
    assert (
        b"".join(block.data for block in blocks) == centre.register.roster.encoded[: 2 * reference.block_size]
    )


def test_a_request_for_a_certificate_waits_for_whoever_issues_them(centre) -> None:
    assert centre.send("hospital-a", RenewalRequest(b"first")) == []
    centre.send("hospital-a", RenewalRequest(b"second"))
    assert centre.coordinator.renewal_requests == {"hospital-a": b"second"}


@pytest.mark.parametrize("signed_by", ["the key of before", "a stranger"])
def test_after_a_rotation_what_the_key_of_before_signed_is_still_taken_back(centre, signed_by) -> None:
    """A site holds version 3, announced under the key of before; a restored aggregator does not."""
    key = centre.key if signed_by == "the key of before" else new_signing_key()
    plan, specification = centre.coordinator.plan, centre.federation.specification
    head, topic = initial_shared_head("fedmedclip", plan.embedding_size, 7), topics.head(FEDERATION)
    announced = Announcement(3, head_digest(head), False, None, None)
    evidence = Evidence(
        seal(plan, topics.plan(FEDERATION), key, NO_IDENTITY),
        topic,
        seal(announced, topic, key, plan.identity),
        specification.to_bytes(head),
    )
    following = new_signing_key()
    centre.append(KeyRotated(following.public_key), following)
    centre.coordinator.revise(0.0, aggregator_key=following.public_key)
    centre.send("hospital-a", HeadRequest(3))
    assert StateRequest(0) in [item.message for item in centre.coordinator.tick(1.0)]
    centre.send("hospital-a", State(encode_evidence(evidence)))
    assert centre.coordinator.global_head.version == (3 if signed_by == "the key of before" else 0)
    assert centre.coordinator.plan.aggregator_key == following.public_key


def test_a_run_goes_on_with_the_key_of_today(folder, tmp_path) -> None:
    configuration, bundle = folder.aggregator(), open_bundle(folder.bundle)
    store = Store(tmp_path / "aggregator.db")
    begun, _ = begin_or_resume(configuration, bundle, store, A.public_key)
    with pytest.raises(InvalidInputError, match="another aggregator_key"):
        begin_or_resume(configuration, bundle, store, B.public_key)
    plan, _ = begin_or_resume(
        configuration, bundle, store, B.public_key, former_keys=[A.public_key, B.public_key]
    )
    assert (plan.aggregator_key, plan.identity) == (B.public_key, begun.identity)
    assert plan.revision > begun.revision
    store.close()


def test_a_run_of_another_version_of_its_method_does_not_go_on_but_the_next_may_begin(
    folder, tmp_path, monkeypatch
) -> None:
    configuration, bundle = folder.aggregator(), open_bundle(folder.bundle)
    store = Store(tmp_path / "aggregator.db")
    begun, specification = begin_or_resume(configuration, bundle, store, A.public_key)
    larger = HeadSpecification((*specification.tensors, TensorSpecification("new", (3,))))
    monkeypatch.setattr("fedmedclip.aggregator.federation.shared_head_specification", lambda *_: larger)
    with pytest.raises(InvalidInputError, match=rf"another version of method.* not {larger.size}.*--new-run"):
        begin_or_resume(configuration, bundle, store, A.public_key)
    monkeypatch.undo()
    plan, _ = begin_or_resume(configuration, bundle, store, A.public_key, new_run=True)
    assert plan.number > begun.number
    store.close()
