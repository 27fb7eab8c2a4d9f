"""An aggregator that lost its state gets it back from its sites, in whatever order things come."""

import random

import msgspec
import pytest

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.protocol import moments, topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import (
    Announcement,
    HeadRequest,
    Join,
    JoinAnswer,
    Receipt,
    State,
    StateRequest,
    Update,
)
from fedmedclip.protocol.signature import fingerprint, new_signing_key
from tests.simulation.federation.loopback import FEDERATION, Loopback, play_to


@pytest.mark.parametrize("lost", [1, 4])
def test_an_aggregator_restored_from_a_backup_gets_its_state_back_from_the_sites(tmp_path, lost, caplog):
    federation = Loopback(tmp_path, rounds=8, embedding_size=80)
    play_to(federation, 2)
    federation.store.copy_to(tmp_path / "backup.db")
    play_to(federation, 2 + lost)
    newest = federation.coordinator.global_head.digest
    federation.restore_aggregator(tmp_path / "backup.db")
    assert federation.coordinator.global_head.version == 2
    for site in federation.agents:
        federation.start_site(site)
    while federation.coordinator.global_head.version < 2 + lost:
        federation.step()
    assert federation.coordinator.global_head.digest == newest
    assert "this aggregator lost state" in caplog.text
    federation.run()
    federation.final_digest()


def test_sites_that_never_lost_their_connection_give_it_back_too(tmp_path):
    federation = Loopback(tmp_path, rounds=6)
    play_to(federation, 1)
    federation.store.copy_to(tmp_path / "backup.db")
    play_to(federation, 4)
    federation.restore_aggregator(tmp_path / "backup.db")
    federation.run()
    assert federation.final_digest()


@pytest.mark.parametrize("change", [{"paused": True}, {"rounds": 7}, {"maximum_update_norm": 900.0}])
@pytest.mark.parametrize("version", [0, 2])
def test_what_the_coordinator_changed_after_the_backup_comes_back_too(tmp_path, version, change):
    federation = Loopback(tmp_path, rounds=5)
    play_to(federation, version)
    federation.step()
    federation.store.copy_to(tmp_path / "backup.db")
    federation.from_aggregator(federation.coordinator.revise(federation.now, **change))
    changed = federation.coordinator.plan
    federation.step()
    federation.restore_aggregator(tmp_path / "backup.db")
    assert federation.coordinator.plan.revision < changed.revision
    for _ in range(300):
        federation.step()
        if federation.coordinator.plan == changed:
            break
    assert federation.coordinator.plan == changed
    if changed.paused:
        federation.from_aggregator(federation.coordinator.revise(federation.now, paused=False))
    federation.run()
    assert federation.final_digest()


def test_a_version_that_all_have_heard_of_and_nobody_has_is_made_again(tmp_path, caplog):
    """One that is rolled back to is announced without its head; the aggregator is lost before it gives it."""
    federation = Loopback(tmp_path, rounds=4)
    play_to(federation, 1)
    while any(agent.version < 1 for agent in federation.agents.values()):
        federation.step()
    federation.store.copy_to(tmp_path / "backup.db")
    before = federation.coordinator.global_head.version
    federation.from_aggregator(federation.coordinator.roll_back(0, federation.now))
    heard = [letter for letter in federation.queue if "/down/" not in letter[1]]
    federation.restore_aggregator(tmp_path / "backup.db")
    federation.queue[:] = [*heard, *federation.queue]
    assert federation.coordinator.global_head.version == before
    federation.run()
    assert "was announced and is gone" in caplog.text
    assert federation.final_digest()


def test_an_update_that_was_accepted_and_then_lost_with_a_restored_backup_is_sent_again(tmp_path):
    federation = Loopback(tmp_path, rounds=4, sites=2)
    play_to(federation, 1)
    federation.store.copy_to(tmp_path / "backup.db")
    late, state = federation.agents.pop("site-1"), federation.states["site-0"]
    for _ in range(50):
        federation.step()
    assert federation.store.stored_updates() == [("site-0", 2)]
    assert state.outgoing_update() is None
    federation.agents["site-1"] = late
    federation.restore_aggregator(tmp_path / "backup.db")
    federation.run()
    assert federation.final_digest()


def test_an_update_whose_receipt_was_lost_with_the_aggregators_state_is_not_given_twice(tmp_path):
    federation = Loopback(tmp_path, rounds=4, sites=2)
    play_to(federation, 1)
    federation.store.copy_to(tmp_path / "backup.db")
    site = federation.agents["site-0"]

    def lose(kind, site_topic):
        federation.queue = [
            letter
            for letter in federation.queue
            if letter[1] != site_topic or not isinstance(open_envelope(letter[2], letter[1]).message, kind)
        ]
        federation.step()

    while site.version < 2:
        lose(Receipt, topics.down(FEDERATION, "site-0"))
    assert federation.states["site-0"].outgoing_update().round_number == 2
    owed = federation.states["site-0"].load().residual
    federation.restore_aggregator(tmp_path / "backup.db")
    while federation.coordinator.global_head.version < 2:
        lose(Update, topics.up(FEDERATION, "site-0"))
    while federation.states["site-0"].load().trained_round < 3:
        assert federation.states["site-0"].load().residual == owed
        federation.step()
    federation.run()
    assert federation.final_digest()


def test_an_aggregator_restored_from_before_a_site_joined_admits_it_again(tmp_path):
    federation = Loopback(tmp_path, rounds=4, sites=2)
    federation.store.copy_to(tmp_path / "backup.db")
    play_to(federation, 2)
    federation.restore_aggregator(tmp_path / "backup.db")
    assert not federation.coordinator.rounds.members
    federation.run()
    assert federation.final_digest()


def test_a_late_answer_to_a_site_that_was_forgotten_since_keeps_it_out_for_a_while_only(tmp_path):
    federation = Loopback(tmp_path, rounds=4, sites=2)
    federation.store.copy_to(tmp_path / "backup.db")
    play_to(federation, 0)
    federation.restore_aggregator(tmp_path / "backup.db")
    topic, site = topics.down(FEDERATION, "site-1"), federation.agents["site-1"]
    key, asked = federation.keys["site-1"].public_key, site._application.asked
    answer = JoinAnswer(fingerprint(key), True, "", asked, None, 1)
    late = seal(answer, topic, federation.aggregator_key, federation.plan.identity)
    while federation.queue:
        federation.step()
        site.receive(topic, late, federation.now)
    federation.run()
    assert federation.final_digest()


def test_a_receipt_that_went_with_the_aggregator_costs_a_moment_and_no_longer(tmp_path):
    federation = Loopback(tmp_path, rounds=4, sites=2)
    play_to(federation, 1)
    deliver, lost = federation.deliver, []

    def without_the_next_receipt(receiver, topic, payload):
        if receiver == "site-1" and not lost and isinstance(open_envelope(payload, topic).message, Receipt):
            lost.append(payload)
        else:
            deliver(receiver, topic, payload)

    federation.deliver = without_the_next_receipt
    play_to(federation, 2)
    assert lost
    before = federation.now
    play_to(federation, 3)
    assert federation.now - before < ASK_AGAIN_SECONDS


def test_a_plan_that_somebody_else_signed_makes_no_site_join_again(tmp_path):
    federation = Loopback(tmp_path, rounds=2, sites=1)
    play_to(federation, 1)
    stranger, topic = new_signing_key(), topics.plan(FEDERATION)
    forged = msgspec.structs.replace(federation.plan, aggregator_key=stranger.public_key)
    federation.agents["site-0"].receive(topic, seal(forged, topic, stranger, NO_IDENTITY), federation.now)
    federation.now += 30.0
    sent = federation.agents["site-0"].tick(federation.now)
    assert not any(isinstance(message, Join) for message in sent)


@pytest.mark.parametrize("seed", range(4))
def test_restored_backups_amid_loss_and_kills_lead_to_the_same_head_everywhere(tmp_path, seed):
    federation, chance = Loopback(tmp_path, rounds=10), random.Random(seed)
    play_to(federation, 2)
    federation.store.copy_to(tmp_path / "backup.db")
    for version in (4, 6):
        while federation.coordinator.global_head.version < version:
            federation.step(loss=0.1, repeats=0.1, kills=0.02, chance=chance)
        federation.restore_aggregator(tmp_path / "backup.db")
    federation.run(loss=0.1, repeats=0.1, kills=0.02, seed=seed, steps=60_000)
    assert federation.final_digest()


def test_forged_evidence_moves_nothing(tmp_path):
    federation = Loopback(tmp_path, rounds=6, sites=2)
    play_to(federation, 2)
    coordinator, stranger = federation.coordinator, new_signing_key()
    topic, identity = topics.up(FEDERATION, "site-0"), federation.plan.identity

    def from_site(message):
        payload = seal(message, topic, federation.keys["site-0"], identity)
        return coordinator.receive(topic, payload, federation.now)

    before = coordinator.global_head.digest
    head = federation.specification.initial(77)
    head_topic = topics.head(FEDERATION)
    true_plan = federation.retained[topics.plan(FEDERATION)]
    for key, digest in ((stranger, head_digest(head)), (federation.aggregator_key, bytes(32))):
        carrier = seal(Announcement(5, digest, False, None, None), head_topic, key, identity)
        evidence = Evidence(true_plan, head_topic, carrier, federation.specification.to_bytes(head))
        from_site(HeadRequest(5))
        asked = coordinator.tick(federation.now + 500.0 * (1 + (key is stranger)))
        assert any(isinstance(item.message, StateRequest) for item in asked)
        from_site(State(encode_evidence(evidence)))
        assert coordinator.global_head.digest == before
    federation.run()
    assert federation.final_digest()


def test_a_site_restored_while_its_clock_stands_in_the_past_takes_part_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(moments, "session_after", lambda before, clock: before + 1)
    federation = Loopback(tmp_path, rounds=6, sites=2)
    play_to(federation, 1)
    federation.states["site-1"].copy_to(tmp_path / "backup.db")
    for version in (2, 3, 4):
        federation.kill("site-1")
        play_to(federation, version)
    federation.states["site-1"].close()
    for name in ("site-1.db", "site-1.db-wal", "site-1.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "backup.db").rename(tmp_path / "site-1.db")
    federation.start_site("site-1")
    federation.run()
    assert federation.final_digest()
    assert "its clock stood in the past; going on after them" in caplog.text
    assert federation.states["site-1"].session() > 4


def test_everything_that_a_site_ever_said_changes_nothing_when_it_is_said_again(tmp_path):
    federation = Loopback(tmp_path, rounds=4, sites=2)
    heard = []
    receive = federation.coordinator.receive

    def overhearing(topic, payload, now):
        heard.append((topic, payload))
        return receive(topic, payload, now)

    federation.coordinator.receive = overhearing
    play_to(federation, 2)
    federation.coordinator.receive = receive
    store, rounds = federation.store, federation.coordinator.rounds
    before = store._database.rows("SELECT * FROM sites"), store.stored_updates(), store.newest_version()
    for _ in range(4):
        federation.now += 60.0
        for topic, payload in heard:
            receive(topic, payload, federation.now)
        federation.coordinator.tick(federation.now)
    after = store._database.rows("SELECT * FROM sites"), store.stored_updates(), store.newest_version()
    assert after == before
    assert not any(rounds.present(site) for site in rounds.members)  # a lease is 180 s
    assert len(heard) > 5
    federation.run()
    assert federation.final_digest()
