"""Runs follow each other, and each is steered while it goes on."""

import msgspec
import numpy as np

from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.messages import (
    plan_of_version_1,
)
from tests.simulation.federation.loopback import FEDERATION, Loopback, play_to


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
    federation.coordinator._run.wall_clock = lambda: 1000.0
    federation.run()
    federation.store.copy_to(tmp_path / "backup.db")
    federation.from_aggregator(federation.coordinator.revise(federation.now, rounds=5, paused=True))
    while federation.queue:
        federation.step()
    federation.restore_aggregator(tmp_path / "backup.db")
    federation.coordinator._run.wall_clock = lambda: 2000.0
    federation.from_aggregator(federation.coordinator.revise(federation.now, rounds=4))
    federation.plan = federation.coordinator.plan
    federation.run()
    assert federation.final_digest()


def test_plans_of_the_version_before_are_read(tmp_path):
    old = Loopback(tmp_path).plan
    fields = [getattr(old, name) for name in old.__struct_fields__[:10]]
    assert plan_of_version_1(msgspec.msgpack.encode([1, *fields])) == old
