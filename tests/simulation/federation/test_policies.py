"""Partial participation, late updates and buffered rounds, with real agents, coordinator and signatures."""

from unittest.mock import ANY

import pytest

from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import open_envelope, seal
from fedmedclip.protocol.messages import Announcement, Receipt, Update
from fedmedclip.protocol.participation import lot_of
from tests.simulation.federation.loopback import FEDERATION, Loopback


def drawn_for(federation, round_number, number):
    sites = sorted(federation.keys, key=lambda site: lot_of(federation.plan.seed, site, round_number))
    return set(sites[:number])


def all_joined(federation):
    while not all(agent.joined for agent in federation.agents.values()):
        federation.step()


def play_rounds(federation, last):
    """Play to version `last`; return who trained which round."""
    for _ in range(20_000):
        if federation.coordinator.global_head.version >= last and not federation.queue:
            break
        federation.step()
    trained = {number: set() for number in range(1, last + 1)}
    for site, learner in federation.learners.items():
        for number in learner.trained:
            trained.setdefault(number, set()).add(site)
    return trained


def test_each_round_is_trained_by_the_sites_that_are_drawn_and_ends_with_equal_heads(tmp_path):
    federation = Loopback(tmp_path, sites=6, rounds=6, minimum_sites=2, sites_per_round=2)
    all_joined(federation)
    federation.run()
    trained = play_rounds(federation, 6)
    # In the first round sites are drawn as they come.
    assert all(trained[number] == drawn_for(federation, number, 2) for number in range(2, 7))
    assert federation.final_digest()


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_of_sites_goes_on_amid_loss_repeats_and_kills(tmp_path, seed):
    federation = Loopback(tmp_path, sites=5, rounds=5, minimum_sites=2, sites_per_round=3)
    federation.run(loss=0.1, repeats=0.1, kills=0.03, seed=seed, steps=80_000)
    assert federation.final_digest()


def test_a_drawn_site_that_vanishes_is_replaced_by_one_that_is_told_in_a_small_message(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=4, minimum_sites=2, sites_per_round=2)
    all_joined(federation)
    play_rounds(federation, 1)
    gone = min(federation.keys, key=lambda site: lot_of(federation.plan.seed, site, 3))
    calls = []
    deliver = federation.deliver

    def watched(receiver, topic, payload):
        message = open_envelope(payload, topic).message
        if "/down/" in topic and isinstance(message, Announcement) and message.version == 2:
            calls.append((receiver, len(payload)))
        deliver(receiver, topic, payload)

    federation.deliver = watched
    while federation.coordinator.global_head.version < 2:
        federation.step()
    federation.agents.pop(gone)
    federation.run(steps=40_000)
    assert federation.coordinator.global_head.version == 4
    assert calls
    assert gone not in {receiver for receiver, _ in calls}
    assert all(size < 130 for _, size in calls)


def test_who_is_not_drawn_and_delivers_all_the_same_is_not_counted(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=4, minimum_sites=2, sites_per_round=2)
    all_joined(federation)
    play_rounds(federation, 1)
    pushy = (set(federation.keys) - drawn_for(federation, 2, 2)).pop()
    topic = topics.up(FEDERATION, pushy)
    payload = next(iter(federation.store.versions_after(0))).payload
    message = seal(Update(2, 100, payload, 0), topic, federation.keys[pushy], federation.plan.identity)
    (answer,) = federation.coordinator.receive(topic, message, federation.now)
    assert answer.message == Receipt(2, False, "not drawn for round 2", True, ANY)
    assert (pushy, 2) not in federation.store.stored_updates()
    federation.run()


def late_federation(tmp_path, **policy):
    """Play until site-2's update of round 1 is held back and round 2 is open; return it, too."""
    federation = Loopback(tmp_path, sites=3, rounds=4, minimum_sites=2, buffer_size=2, **policy)
    all_joined(federation)
    held, deliver = [], federation.deliver

    def hold_back(receiver, topic, payload):
        if topic == topics.up(FEDERATION, "site-2") and isinstance(
            open_envelope(payload, topic).message, Update
        ):
            held.append((topic, payload))
        else:
            deliver(receiver, topic, payload)

    federation.deliver = hold_back
    while federation.coordinator.global_head.version < 1 or not held:
        federation.step()
    federation.deliver = deliver
    topic, payload = held[0]
    assert open_envelope(payload, topic).message.round_number == 1
    return federation, topic, payload


def test_a_late_update_counts_in_the_open_round_and_is_not_lost_in_a_restart(tmp_path):
    federation, topic, payload = late_federation(tmp_path, maximum_staleness=2)
    answers = federation.coordinator.receive(topic, payload, federation.now)
    assert Receipt(1, True, "", False, ANY) in [answer.message for answer in answers]
    assert ("site-2", 1) in federation.store.stored_updates()
    federation.kill("aggregator")
    assert "site-2" in federation.coordinator.rounds.delivered
    # It counts once, however often it comes.
    federation.coordinator.receive(topic, payload, federation.now)
    assert [site for site, _ in federation.store.stored_updates()].count("site-2") == 1
    federation.run()
    assert federation.final_digest()


def test_without_staleness_a_late_update_does_not_count(tmp_path):
    federation, topic, payload = late_federation(tmp_path)
    answers = federation.coordinator.receive(topic, payload, federation.now)
    assert [answer.message.closed for answer in answers if isinstance(answer.message, Receipt)] == [True]
    assert "site-2" not in federation.coordinator.rounds.delivered
    federation.run()
    assert federation.final_digest()


def test_no_update_of_before_the_last_counts_however_late_one_may_be(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=5, maximum_staleness=5)
    play_rounds(federation, 3)
    topic = topics.up(FEDERATION, "site-0")
    payload = federation.store.versions_after(0)[0].payload
    federation.store.counted.forget("site-0", 2)
    for number, counted in ((1, True), (2, False)):
        message = seal(
            Update(number, 100, payload, 0), topic, federation.keys["site-0"], federation.plan.identity
        )
        (answer,) = federation.coordinator.receive(topic, message, federation.now)
        # Said once more of one that counted: its site was restored from a backup.
        assert (answer.message.accepted, answer.message.closed) == (counted, not counted)
    assert federation.store.stored_updates() == []


@pytest.mark.parametrize("seed", range(3))
def test_buffered_rounds_with_late_updates_go_on_amid_loss_repeats_and_kills(tmp_path, seed):
    federation = Loopback(tmp_path, sites=4, rounds=6, minimum_sites=1, buffer_size=2, maximum_staleness=3)
    federation.run(loss=0.1, repeats=0.1, kills=0.03, seed=seed, steps=80_000)
    assert federation.final_digest()


def test_all_policies_together_survive_a_restored_backup(tmp_path):
    federation = Loopback(
        tmp_path, sites=5, rounds=6, minimum_sites=1, sites_per_round=3, buffer_size=2, maximum_staleness=2
    )
    play_rounds(federation, 2)
    federation.store.copy_to(tmp_path / "backup.db")
    play_rounds(federation, 4)
    federation.restore_aggregator(tmp_path / "backup.db")
    federation.run(steps=80_000)
    assert federation.final_digest()


def test_after_a_rollback_every_announcement_says_who_is_drawn_for_the_new_round(tmp_path):
    federation = Loopback(tmp_path, sites=5, rounds=5, minimum_sites=2, sites_per_round=2)
    all_joined(federation)
    play_rounds(federation, 3)
    outgoing = federation.coordinator.roll_back(1, federation.now)
    announced = {item.message.drawn_below for item in outgoing if isinstance(item.message, Announcement)}
    assert announced == {federation.coordinator.rounds.drawn_below}
    federation.from_aggregator(outgoing)
    federation.run(steps=40_000)
    assert federation.coordinator.global_head.version == 6
