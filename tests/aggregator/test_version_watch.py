"""A federation whose sites share figures: kept, bounded, believed of members alone; the best head stays."""

import logging
from typing import Union, get_args

import msgspec
import pytest

from fedmedclip.aggregator.commands import AddRounds, RollBack, carry_out
from fedmedclip.aggregator.metrics_table import KEPT_VERSIONS
from fedmedclip.aggregator.status import status_of, stored_status
from fedmedclip.aggregator.stored_heads import head_at
from fedmedclip.aggregator.version_metrics import best_version, site_metrics, version_figures
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.protocol import messages, topics
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.signature import new_signing_key
from tests.aggregator.metrics import metrics
from tests.simulation.federation.loopback import FEDERATION, IN_ORDER, Loopback, play_to

SHARING = PolicySettings()


def rising_until(best):
    """Figures that rise by 5 % a version up to this one, and are a little less after it."""
    return lambda site, version: 0.5 + 0.05 * min(version, best) - (0.02 if version > best else 0.0)


def federated(folder, scores, sites=3, rounds=8, **settings):
    federation = Loopback(
        folder, sites=sites, rounds=rounds, embedding_size=8, minimum_sites=2, metrics=SHARING, durable=False,
        **settings,
    )  # fmt: skip
    for learner in federation.learners.values():
        learner.scores = scores
    return federation


def say(federation, site, said, key=None):
    """Publish metrics as of a site, with its key or another."""
    topic = topics.up(FEDERATION, site)
    payload = seal(said, topic, key or federation.keys[site], federation.plan.identity)
    federation.deliver("aggregator", topic, payload)
    return payload


def test_every_site_is_heard_of_every_version_also_where_messages_are_lost_and_parties_killed(tmp_path):
    federation = federated(tmp_path, rising_until(8), rounds=5)
    federation.run(repeats=0.1, kills=0.02, seed=3)
    found = version_figures(federation.store)
    assert [figures.version for figures in found] == [0, 1, 2, 3, 4, 5]
    assert [figures.sites for figures in found] == [3] * 6
    assert [figures.weighted_mean for figures in found] == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75])
    assert [figures.version for figures in found if figures.best] == [5]
    shared = site_metrics(federation.store)
    assert {site: found.train_images for site, found in shared.items()} == {
        "site-0": 100, "site-1": 150, "site-2": 200,
    }  # fmt: skip
    assert {found.active for found in shared.values()} == {5}


def test_heads_are_the_same_bits_with_and_without_metrics(tmp_path):
    digests = set()
    for name, sharing in (("with", SHARING), ("without", None)):
        (tmp_path / name).mkdir()
        federation = Loopback(
            tmp_path / name, sites=2, rounds=3, embedding_size=8, metrics=sharing, durable=False
        )
        while not federation.coordinator.settled:
            federation.step(chance=IN_ORDER)
        digests.add(federation.final_digest())
    assert len(digests) == 1


def test_only_a_member_is_heard_and_only_of_itself(tmp_path):
    federation = federated(tmp_path, rising_until(8))
    play_to(federation, 2)
    before = version_figures(federation.store)
    stranger = new_signing_key()
    say(federation, "site-9", metrics(1, 0.9), stranger)
    say(federation, "site-0", metrics(1, 0.9, number=5), stranger)
    say(federation, "site-0", metrics(1, 0.9, number=5), federation.keys["site-1"])
    assert version_figures(federation.store) == before
    say(federation, "site-0", metrics(1, 0.9, number=5))
    assert site_metrics(federation.store, 1)["site-0"].classifiers["ensemble"].balanced_accuracy == 0.9


def test_copies_and_figures_of_versions_that_are_not_here_change_nothing(tmp_path):
    federation = federated(tmp_path, rising_until(8))
    play_to(federation, 2)
    copy = say(federation, "site-0", metrics(1, 0.9, number=5))
    say(federation, "site-0", metrics(1, 0.8, number=6))
    heard = federation.coordinator.rounds.member("site-0").heard_at
    before = version_figures(federation.store)
    federation.now += 50
    federation.deliver("aggregator", topics.up(FEDERATION, "site-0"), copy)
    say(federation, "site-0", metrics(3, 0.9))
    assert version_figures(federation.store) == before
    assert federation.coordinator.rounds.member("site-0").heard_at == heard
    assert federation.coordinator.refused_messages["site-0"] == 0


def test_what_is_kept_is_bounded(tmp_path):
    federation = federated(tmp_path, lambda site, version: 0.9 if version == 1 else 0.5)
    play_to(federation, 2)
    head = federation.coordinator.global_head
    head.adopt(KEPT_VERSIONS + 5, head.head())
    say(federation, "site-0", metrics(4, 0.9))
    say(federation, "site-0", metrics(KEPT_VERSIONS + 5, 0.5))
    assert federation.store.metrics.versions() == [1, KEPT_VERSIONS + 5]
    for _ in range(100):
        say(federation, "site-0", metrics(KEPT_VERSIONS, 0.5))
    assert ("site-0", "figures of versions") in [
        (sender, kind) for sender, kind, _ in federation.coordinator.floods.dropped()
    ]


def test_who_is_in_quarantine_is_not_heard_and_who_leaves_is_forgotten(tmp_path):
    federation = federated(tmp_path, rising_until(8))
    play_to(federation, 1)
    federation.coordinator.quarantine("site-2", "odd", federation.now)
    say(federation, "site-2", metrics(1, 0.9, number=7))
    federation.coordinator.release("site-2", federation.now)
    assert version_figures(federation.store)[1].worst == pytest.approx(0.55)
    say(federation, "site-2", metrics(1, 0.1, number=7))
    assert version_figures(federation.store)[1].worst_site == "site-2"
    federation.store.forget_site("site-2")
    assert "site-2" not in site_metrics(federation.store)


def test_the_best_versions_head_is_kept_and_can_be_gone_back_to(tmp_path):
    federation = federated(tmp_path, rising_until(2))
    play_to(federation, 5)
    store, head = federation.store, federation.coordinator.global_head
    digests = federation.learners["site-0"].digests
    assert best_version(store) == 2
    head.keep_at_most(1, best_version(store))
    assert [stored.version for stored in store.versions_after(0)] == [5]
    assert best_version(store) == 2
    assert head_digest(head_at(store, federation.specification, 2)) == digests[2]
    answer, outgoing = carry_out(RollBack(2), federation.coordinator, federation.now)
    assert answer == "version 6 has the head of version 2"
    federation.from_aggregator(outgoing)
    play_to(federation, 6)
    assert digests[6] == digests[2]


def test_a_run_that_gets_no_better_ends_and_says_why(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "fedmedclip.aggregator")
    federation = federated(tmp_path, rising_until(3), rounds=30, stop_when_flat=3)
    federation.run(repeats=0.05, kills=0.01, seed=5)
    coordinator = federation.coordinator
    ended = coordinator.global_head.version
    assert 6 <= ended <= 7
    assert (coordinator.plan.rounds, coordinator.plan.revision > 1) == (ended, True)
    assert all(agent.finished for agent in federation.agents.values())
    reason = "no version of the last 3 is better than version 3 by 0.002"
    assert (
        len([line for line in caplog.messages if f"the run ends at version {ended}: {reason}" in line]) == 1
    )
    for status in (status_of(coordinator, federation.now), stored_status(federation.store)):
        assert status.warnings[0].startswith(f"the run was ended at version {ended}: {reason}")
    # What comes late, or after a restart, opens nothing again.
    federation.kill("aggregator")
    say(federation, "site-0", metrics(ended, 1.0, number=9))
    say(federation, "site-1", metrics(ended, 1.0, number=9))
    assert federation.coordinator.global_head.finished


def test_rounds_that_are_added_to_it_have_as_many_versions_to_get_better(tmp_path):
    federation = federated(tmp_path, rising_until(1), rounds=30, stop_when_flat=2)
    federation.run()
    ended = federation.coordinator.global_head.version
    outgoing = carry_out(AddRounds(20), federation.coordinator, federation.now)[1]
    federation.from_aggregator(outgoing)
    say(federation, "site-0", metrics(ended, 0.5, number=9))
    assert not federation.coordinator.global_head.finished
    federation.run()
    assert ended + 2 <= federation.coordinator.global_head.version <= ended + 3


def test_one_site_does_not_end_it_and_too_few_do_not(tmp_path):
    def scores(site, version):
        falling = 1.0 if version < 2 else 0.0
        return falling if site == "site-0" else 0.5 + 0.02 * version

    federation = federated(tmp_path, scores, rounds=8, stop_when_flat=2)
    for learner in list(federation.learners.values())[:1]:
        learner.samples = 10**6
    federation.run()
    assert federation.coordinator.global_head.version == 8


def test_a_site_that_gets_worse_is_logged_once_until_it_is_better_again(tmp_path, caplog):
    caplog.set_level(logging.INFO, "fedmedclip.aggregator")
    federation = federated(tmp_path, rising_until(0), rounds=9)
    play_to(federation, 1)
    head = federation.coordinator.global_head

    def tell(version, share, **more):
        head.adopt(version, head.head())
        say(federation, "site-0", metrics(version, share, **more))

    for version, share in enumerate((0.9, 0.9, 0.9, 0.5, 0.5, 0.5), 10):
        tell(version, share)
    federation.kill("aggregator")
    head = federation.coordinator.global_head
    tell(16, 0.5)
    named = [line for line in caplog.messages if line.startswith("site-0 gets worse")]
    assert len(named) == 1
    assert "versions 13 and 14" in named[0]
    assert any(
        line.startswith("site-0 gets worse") for line in status_of(federation.coordinator, 0.0).warnings
    )
    tell(17, 0.5, active=11, verdict=2)
    assert "version 17 is not activated at site-0 (set aside); version 11 answers" in caplog.messages


def test_figures_count_for_no_more_images_than_the_roster_lets_updates_count(tmp_path):
    class Register:
        def most_samples(self, site):
            return 30 if site == "site-0" else 1000

        def key(self, site):
            return federation.keys[site]

        def why_not(self, site):
            return ""

    federation = federated(tmp_path, rising_until(8))
    play_to(federation, 1)
    federation.coordinator._run.register = Register()
    for site in federation.keys:
        share = 1.0 if site == "site-0" else 0.5
        say(federation, site, metrics(1, share, number=5, images=10**9 if site == "site-0" else 30))
    assert version_figures(federation.store)[1].weighted_mean == pytest.approx(2 / 3)


def test_an_aggregator_of_before_refuses_them_and_everything_goes_on(tmp_path, monkeypatch):
    """One that does not know the tag: what it cannot decode, it refuses, and counts."""
    known = Union[*(of for of in get_args(messages.Message) if of is not messages.Metrics)]
    federation = federated(tmp_path, rising_until(8), sites=2, rounds=3)
    monkeypatch.setattr(messages, "_decoder", msgspec.msgpack.Decoder(known))
    federation.run()
    assert federation.coordinator.global_head.version == 3
    assert version_figures(federation.store) == []
    assert federation.coordinator.refused_messages["site-0"] >= 3
