"""From every state that a federation can come into, with everybody back in the end, it goes on."""

import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.errors import AggregationError, HeadError, InvalidInputError, StorageError
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import (
    Announcement,
    HeadRequest,
    Join,
    JoinAnswer,
    Receipt,
    Snapshot,
    State,
    StateRequest,
    Update,
    plan_of_version_1,
)
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.signature import fingerprint, new_signing_key
from tests.simulation.federation.loopback import BUNDLE, FEDERATION, Loopback


def play_to(federation, version, **disturbance):
    for _ in range(20_000):
        if federation.coordinator.global_head.version >= version and not federation.queue:
            return
        federation.step(**disturbance)
    raise AssertionError(f"stuck at version {federation.coordinator.global_head.version}")


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


def test_an_update_that_was_accepted_and_then_lost_with_a_restored_backup_is_sent_again(tmp_path):
    federation = Loopback(tmp_path, rounds=4, sites=2)
    play_to(federation, 1)
    federation.store.copy_to(tmp_path / "backup.db")
    late, state = federation.agents.pop("site-1"), federation.agents["site-0"]._state
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
    assert site._state.outgoing_update().round_number == 2
    owed = site._state.load().residual
    federation.restore_aggregator(tmp_path / "backup.db")
    while federation.coordinator.global_head.version < 2:
        lose(Update, topics.up(FEDERATION, "site-0"))
    while site._state.load().trained_round < 3:
        assert site._state.load().residual == owed
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
    answer = JoinAnswer(fingerprint(federation.keys["site-1"].public_key), True, "")
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


def test_a_later_run_of_the_same_coordinator_is_followed_and_the_one_before_is_kept(tmp_path):
    federation = Loopback(tmp_path, rounds=3)
    federation.run()
    before = {site: SiteState(tmp_path / f"{site}.db").load() for site in federation.agents}
    federation.begin_run(rounds=5, seed=12)
    federation.run()
    assert federation.final_digest()
    for site, agent in federation.agents.items():
        state = SiteState(tmp_path / f"{site}.db")
        assert [(plan.number, version) for plan, version in state.ended_runs()] == [(1, 3)]
        stored = state.load()
        assert (stored.plan.number, stored.version) == (2, 5)
        private = np.frombuffer(stored.private_head, np.float32)
        begun_with = np.frombuffer(before[site].private_head, np.float32)
        # Round n adds n to it: 1 + ... + 5 on top of what the first run had made.
        np.testing.assert_allclose(private, begun_with + 15)
        assert agent.version == 5


def test_a_run_begun_while_sites_are_away_and_in_the_middle_of_a_round_is_followed(tmp_path):
    federation = Loopback(tmp_path, rounds=6)
    while federation.coordinator.global_head.version < 2:
        federation.step()
    federation.begin_run(rounds=4)
    federation.run(loss=0.1, kills=0.02, seed=3)
    assert federation.final_digest()


def test_a_run_may_start_from_an_earlier_head(tmp_path):
    federation = Loopback(tmp_path, rounds=3)
    federation.run()
    head = federation.store.head().head
    digest = federation.coordinator.global_head.digest
    plan = msgspec.structs.replace(federation.plan, identity=bytes(16), number=2, rounds=4, start=digest)
    federation.store.begin_run(plan, head, digest)
    federation.store.close()
    late = federation.agents.pop("site-2")
    (tmp_path / "site-2.db").rename(tmp_path / "gone.db")
    federation.start_aggregator()
    federation.agents["site-2"] = late
    federation.start_site("site-2")
    federation.run()
    assert federation.final_digest()
    assert federation.learners["site-2"].digests[0] == digest


def test_an_earlier_plan_is_an_old_copy_and_is_refused(tmp_path, caplog):
    federation = Loopback(tmp_path, rounds=2)
    federation.run()
    old = federation.retained[topics.plan(FEDERATION)]
    federation.begin_run(rounds=3)
    while not all(agent.plan_identity == federation.plan.identity for agent in federation.agents.values()):
        federation.step()
    for agent in federation.agents.values():
        assert agent.receive(topics.plan(FEDERATION), old, federation.now) == []
    assert "earlier than run 2" in caplog.text
    federation.run()
    assert federation.final_digest()


HOSTILE_PLANS = {
    "another key": {"aggregator_key": new_signing_key().public_key},
    "another bundle": {"bundle_digest": bytes(32), "number": 9},
    "another embedding size": {"embedding_size": 20_000, "number": 9},
    "an unknown method": {"method": "fedmagic", "number": 9},
    "an unknown codec": {"uplink_codec": "rar", "number": 9},
    "fixed things changed": {"seed": 99, "revision": 2},
}


# A fresh site that pins no key trusts the first plan that it hears: there another key is not hostile yet.
HOSTILE_TO = [(name, fresh) for name in HOSTILE_PLANS for fresh in (True, False)]
HOSTILE_TO.remove(("another key", True))


@pytest.mark.parametrize(("name", "fresh"), HOSTILE_TO)
def test_a_plan_that_cannot_be_followed_ends_nobody(tmp_path, name, fresh):
    changes = HOSTILE_PLANS[name]
    federation = Loopback(tmp_path, rounds=4)
    if not fresh:
        play_to(federation, 1)
    stranger = new_signing_key()
    key = stranger if "aggregator_key" in changes else federation.aggregator_key
    plan = msgspec.structs.replace(federation.plan, identity=bytes(range(16)), **changes)
    if "revision" in changes:
        plan = msgspec.structs.replace(plan, identity=federation.plan.identity)
    if key is stranger:
        plan = msgspec.structs.replace(plan, aggregator_key=stranger.public_key)
    topic = topics.plan(FEDERATION)
    payload = seal(plan, topic, key, NO_IDENTITY)
    for site in federation.agents:
        federation.agents[site].receive(topic, payload, federation.now)
        federation.start_site(site)  # and it starts again
    federation.run()
    assert federation.final_digest()


def test_a_site_that_cannot_take_part_says_so_and_is_not_waited_for(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=3, rounds=3, minimum_sites=2)
    agent = federation.agents["site-2"]
    agent._identity = replace(agent._identity, bundle_digest=bytes(32))
    while federation.coordinator.global_head.version < 3:
        federation.step()
    assert "site-2 (software ?) cannot take part: this site's bundle" in caplog.text
    assert federation.learners["site-2"].trained == []


@pytest.mark.parametrize("error", [InvalidInputError("only one image"), HeadError("training diverged")])
def test_a_site_that_cannot_train_abstains_and_comes_back(tmp_path, error, caplog):
    federation = Loopback(tmp_path, sites=3, rounds=5, minimum_sites=3)
    learner = federation.learners["site-1"]
    train, failures = learner.train, iter([error, error])

    def sometimes(plan, shared, private, round_number):
        if (failure := next(failures, None)) is not None:
            raise failure
        return train(plan, shared, private, round_number)

    learner.train = sometimes
    federation.run()
    assert federation.final_digest()
    assert "site-1 abstains" in caplog.text
    assert learner.trained[-1] == 5


def test_a_site_that_could_not_train_for_months_still_tries(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=3, minimum_sites=2)
    play_to(federation, 0)
    agent, learner = federation.agents["site-1"], federation.learners["site-1"]
    tries = []

    def fail(*arguments):
        tries.append(arguments)
        raise InvalidInputError("only one image")

    learner.train = fail
    for hour in range(1, 4_000):
        agent.tick(hour * 3601.0)
        if len(tries) > 1100:
            return
    raise AssertionError(f"gave up after {len(tries)} tries")


def refuse_updates_of(federation, site, limit):
    """Lower the limit at the aggregator alone, so that the site cannot know it and is refused."""
    coordinator = federation.coordinator
    coordinator.plan = msgspec.structs.replace(coordinator.plan, maximum_update_norm=limit)
    return coordinator


def test_a_refused_site_is_not_waited_for_and_delivers_when_the_limit_is_raised(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=4, minimum_sites=3)
    federation.learners["site-1"].train = lambda plan, shared, private, number: (
        {name: array + np.float32(number) for name, array in shared.items()}, private,
    )  # fmt: skip
    refuse_updates_of(federation, "site-1", 5.0)
    while federation.coordinator.global_head.version < 2:
        federation.step()
    refused = federation.agents["site-1"]
    assert refused._delivery._refusals > 0
    federation.coordinator.plan = federation.plan
    federation.run()
    assert federation.final_digest()
    assert federation.store._database.row("SELECT last_round FROM sites WHERE name = 'site-1'") == (4,)


def test_honest_sites_keep_to_the_limit_by_themselves(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    federation.coordinator.revise(0.0, maximum_update_norm=0.05)
    federation.plan = federation.coordinator.plan
    federation.retained.clear()
    federation.from_aggregator(federation.coordinator.opening())
    federation.run()
    assert federation.final_digest()
    assert "refused the update" not in caplog.text


def test_a_hostile_head_ends_no_site(tmp_path):
    federation = Loopback(tmp_path, sites=1, rounds=9)
    play_to(federation, 1)
    agent, identity = federation.agents["site-0"], federation.plan.identity
    huge = {name: np.full_like(array, 3e38) for name, array in federation.specification.initial(0).items()}
    encoded = encode_head(codec_named("lossless"), huge, federation.specification).data
    topic = topics.head(FEDERATION)
    for version in (2, 3):
        payload = refer_to(encoded, 1 << 20)
        message = Announcement(version, bytes(32), False, payload, None)
        agent.receive(topic, seal(message, topic, federation.aggregator_key, identity), federation.now)
    down = topics.down(FEDERATION, "site-0")
    message = Snapshot(
        4, head_digest({k: v + v for k, v in huge.items()}), False, refer_to(encoded, 1 << 20), None
    )
    agent.receive(down, seal(message, down, federation.aggregator_key, identity), federation.now)
    federation.start_site("site-0")
    assert federation.agents["site-0"].version == 1


def test_a_site_that_falls_silent_without_a_last_will_is_not_waited_for(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=3, minimum_sites=2)
    play_to(federation, 1)
    del federation.agents["site-2"]
    began = federation.now
    while federation.coordinator.global_head.version < 2:
        federation.step()
    assert federation.now - began < 300
    assert not federation.coordinator.rounds.present("site-2")


def test_a_flood_of_requests_costs_bounded_memory_and_nobody_else(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=5, embedding_size=80, codec="int8")
    play_to(federation, 2)
    topic, identity = topics.up(FEDERATION, "site-0"), federation.plan.identity
    request = seal(HeadRequest(-1), topic, federation.keys["site-0"], identity)
    answers = 0
    for _ in range(2000):
        found = federation.coordinator.receive(topic, request, federation.now)
        answers += sum(isinstance(item.message, Snapshot) for item in found)
    assert 1 <= answers <= 10
    stranger = new_signing_key()
    topic = topics.up(FEDERATION, "site-9")
    join = Join(stranger.public_key, BUNDLE, 10, -1, "", "")
    found = federation.coordinator.receive(topic, seal(join, topic, stranger, identity), federation.now)
    assert found[0].message.accepted


def test_answers_wait_while_the_link_has_no_room(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=5)
    play_to(federation, 2)
    coordinator, topic = federation.coordinator, topics.up(FEDERATION, "site-0")
    coordinator._has_room = lambda: False
    request = seal(HeadRequest(0), topic, federation.keys["site-0"], federation.plan.identity)
    assert coordinator.receive(topic, request, federation.now) == []
    coordinator._has_room = lambda: True
    assert [type(item.message) for item in coordinator.tick(federation.now)] == [Announcement, Announcement]


class InOrder(random.Random):
    """Chance that never takes another message than the first."""

    def random(self):
        return 0.5


IN_ORDER = InOrder()


@pytest.mark.parametrize("behind", [3, 30])
def test_catching_up_costs_hardly_more_than_the_smaller_of_deltas_and_snapshot(tmp_path, behind):
    federation = Loopback(tmp_path, sites=2, rounds=1 + behind, minimum_sites=1, embedding_size=64)
    del federation.agents["site-1"]
    play_to(federation, 1 + behind)
    head = federation.coordinator.global_head
    envelope = 114
    least = min(
        sum(len(stored.payload) + envelope for stored in federation.store.versions_after(0)),
        len(head._snapshot_bytes()) + envelope,
    )
    received = 0
    deliver = federation.deliver

    def counted(receiver, topic, payload):
        nonlocal received
        if receiver == "site-1" and isinstance(
            open_envelope(payload, topic).message, Announcement | Snapshot
        ):
            received += len(payload)
        deliver(receiver, topic, payload)

    federation.deliver = counted
    federation.start_site("site-1")
    # In the order in which they were sent, as MQTT delivers them.
    while not federation.agents["site-1"].finished or federation.queue:
        federation.step(chance=IN_ORDER)
    retained = len(federation.retained[topics.head(FEDERATION)])
    assert received - retained <= 1.1 * least


def test_rounds_are_added_paused_and_resumed_while_it_runs(tmp_path):
    federation = Loopback(tmp_path, rounds=2)
    federation.run()
    federation.from_aggregator(federation.coordinator.revise(federation.now, rounds=4, paused=True))
    for _ in range(300):
        federation.step()
    assert federation.coordinator.global_head.version == 2
    federation.from_aggregator(federation.coordinator.revise(federation.now, paused=False))
    federation.plan = federation.coordinator.plan
    federation.run()
    assert federation.final_digest()
    federation.from_aggregator(federation.coordinator.revise(federation.now, rounds=4))
    assert all(agent.finished for agent in federation.agents.values())


def test_a_run_is_ended_early(tmp_path):
    federation = Loopback(tmp_path, rounds=50)
    play_to(federation, 2)
    version = federation.coordinator.global_head.version
    federation.from_aggregator(federation.coordinator.revise(federation.now, rounds=version))
    federation.plan = federation.coordinator.plan
    federation.run()
    assert federation.final_digest()


def test_a_change_that_was_lost_with_the_state_is_not_mistaken_for_another(tmp_path):
    federation = Loopback(tmp_path, rounds=2)
    federation.coordinator._wall_clock = lambda: 1000.0
    federation.run()
    federation.store.copy_to(tmp_path / "backup.db")
    federation.from_aggregator(federation.coordinator.revise(federation.now, rounds=5, paused=True))
    while federation.queue:
        federation.step()
    federation.restore_aggregator(tmp_path / "backup.db")
    federation.coordinator._wall_clock = lambda: 2000.0
    federation.from_aggregator(federation.coordinator.revise(federation.now, rounds=4))
    federation.plan = federation.coordinator.plan
    federation.run()
    assert federation.final_digest()


@pytest.mark.parametrize("column", ["shared_head", "private_head", "residual"])
def test_a_flipped_bit_at_a_site_is_noticed(tmp_path, column, caplog):
    federation = Loopback(tmp_path, rounds=4)
    play_to(federation, 2)
    state = federation.agents["site-0"]._state
    (stored,) = state._database.row(f"SELECT {column} FROM site")
    flipped = bytes([stored[0] ^ 1]) + stored[1:]
    with state._database.transaction() as database:
        database.execute(f"UPDATE site SET {column} = ?", (flipped,))
    if column == "shared_head":
        federation.start_site("site-0")
        assert "the shared head is damaged" in caplog.text
        federation.run()
        assert federation.final_digest()
    else:
        with pytest.raises(StorageError, match="private head is damaged"):
            federation.start_site("site-0")


def test_a_flipped_bit_in_the_aggregators_head_is_named(tmp_path):
    federation = Loopback(tmp_path, rounds=4)
    play_to(federation, 2)
    (stored,) = federation.store._database.row("SELECT head FROM federation")
    with federation.store._database.transaction() as database:
        database.execute("UPDATE federation SET head = ?", (bytes([stored[0] ^ 1]) + stored[1:],))
    with pytest.raises(StorageError, match="global head is damaged"):
        federation.store.head()


def test_an_update_of_a_round_that_is_over_is_settled_as_closed(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=5, minimum_sites=1)
    play_to(federation, 2)
    topic = topics.up(FEDERATION, "site-0")
    late = seal(Update(1, 10, b"late"), topic, federation.keys["site-0"], federation.plan.identity)
    with federation.store._database.transaction() as database:
        database.execute("UPDATE sites SET last_round = 0")
    (answer,) = federation.coordinator.receive(topic, late, federation.now)
    assert answer.message == Receipt(1, False, answer.message.reason, True)


def test_plans_of_the_version_before_are_read(tmp_path):
    old = Loopback(tmp_path).plan
    fields = [getattr(old, name) for name in old.__struct_fields__[:10]]
    assert plan_of_version_1(msgspec.msgpack.encode([1, *fields])) == old


def damage_first_update(federation):
    """Step until a site has delivered for the open round, damage what is stored, and return the site."""
    for _ in range(200):
        if stored := federation.store.stored_updates():
            break
        federation.step()
    (site, _), *_ = stored
    with federation.store._database.transaction() as database:
        database.execute("UPDATE updates SET payload = zeroblob(length(payload))")
    return site


def test_an_update_that_the_aggregators_disk_damages_is_sent_again(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=3, rounds=3)
    play_to(federation, 1)
    site = damage_first_update(federation)
    federation.run()
    assert f"the stored update of {site} for round 2 is damaged" in caplog.text
    assert federation.final_digest()
    (tmp_path / "undisturbed").mkdir()
    undisturbed = Loopback(tmp_path / "undisturbed", sites=3, rounds=3, keys_of=federation)
    undisturbed.run()
    assert undisturbed.final_digest() == federation.final_digest()


def test_a_damaged_update_of_a_site_that_is_gone_holds_nobody_up(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=3, minimum_sites=2)
    play_to(federation, 1)
    site = damage_first_update(federation)
    del federation.agents[site]
    federation.run()
    assert federation.final_digest()


def test_a_rule_that_fails_ends_the_aggregator_and_no_update_is_lost(tmp_path, monkeypatch):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    play_to(federation, 1)

    def fails(updates, specification):
        raise AggregationError("aggregation rule 'theirs' failed")

    monkeypatch.setattr(federation.coordinator.global_head, "_rule", fails)
    with pytest.raises(AggregationError):
        federation.run()
    assert len(federation.store.stored_updates()) == 2
    # Mended, and started again: the last event closes the round.
    federation.kill("aggregator")
    federation.run()
    assert federation.final_digest()
