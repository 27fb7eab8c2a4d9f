"""The in-process federation makes the bits and bytes of production agents, and counts what it says."""

from collections import Counter
from contextlib import closing
from dataclasses import replace

import msgspec
import numpy as np
import pytest

import fedmedclip.simulation.federation.federation as module
from fedmedclip.edge_client.features.labelled import LabelledFeatures, SiteFeatures
from fedmedclip.edge_client.heads.heads_file import load_heads
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS, Floors
from fedmedclip.edge_client.learning.private_state import head_of
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.site.learner import LearnerFiles, SiteLearner
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.plan import FederationPlan, derived_key, wire_plan
from fedmedclip.simulation.federation.trainer import Trainer
from tests.edge_client.heads.heads_examples import example_bundle
from tests.simulation.federation.production import ProductionFederation

COMMON_LIMIT = 131_072


def trainer(
    pool, uplink="int8", downlink=None, *, method="fedmedclip", rounds=3, seed=0, masked=True, **options
):
    plan = FederationPlan(
        method, uplink, downlink or uplink, rounds, seed, **{"floors": NO_FLOORS, **options}
    )
    return Trainer(plan, pool, masked=masked)


@pytest.mark.parametrize(
    ("codecs", "method", "sites", "per_round", "rounds", "limit"),
    [
        (("int8", "lowrank"), "fedmedclip", None, None, 3, COMMON_LIMIT),
        (("lossless", "lossless"), "fedmedclip", None, None, 2, 1280),
        (("lowrank", "lowrank"), "whitened-memory", None, None, 3, COMMON_LIMIT),
        (("moments", "moments"), "one-message", None, None, 3, COMMON_LIMIT),
        (("moments", "lossless"), "one-message", 6, 3, 5, 1280),
        # Sites come and go: joining late, deltas, snapshots, and blocks that were missed.
        (("int8", "int8"), "fedmedclip", 8, 2, 8, COMMON_LIMIT),
        (("lowrank", "lowrank"), "fedmedclip", 6, 3, 6, COMMON_LIMIT),
        (("lossless", "lossless"), "fedmedclip", 8, 2, 8, 1280),
        (("sign", "int8"), "linear-probe", 12, 5, 6, 600),
    ],
)
def test_bits_and_bytes_are_those_of_the_production_agents(
    pool, tmp_path, monkeypatch, codecs, method, sites, per_round, rounds, limit
):
    monkeypatch.setattr(module, "SMALLEST_COMMON_LIMIT", limit)
    dealt = pool.deal(3, sites, 5.0)
    training = trainer(pool, *codecs, method=method, rounds=rounds, seed=3)
    number = per_round or len(dealt.sites)
    with (
        closing(ProductionFederation(training, number, tmp_path, limit)) as production,
        closing(Federation(training)) as federation,
    ):
        for version in range(1, rounds + 1):
            chosen = dealt.participants(per_round, 3, version)
            expected = production.play_round(version, chosen)
            found = federation.play_round(version, chosen)
            assert (found.uplink, found.downlink) == (expected.uplink, expected.downlink)
            assert found.exchanges == expected.exchanges
            assert head_digest(federation.head) == production.digest
        # Whatever a site had missed, it trained from the newest head.
        trained_from = production.trained_from
        assert [version for version, _ in trained_from] == sorted([*range(1, rounds + 1)] * number)
        assert len(set(trained_from)) == rounds


@pytest.mark.parametrize("method", ["facmic", "fedmedclip", "whitened-memory"])
def test_what_the_optimiser_remembers_is_kept_as_the_production_agents_keep_it(pool, tmp_path, method):
    """Each site's state rests on disk while others train, and goes on from the same bits."""
    settings = TrainingSettings(optimizer="adam", keep_optimizer_state=True, drop_last=True, batch_size=8)
    training = trainer(
        pool, method=method, rounds=5, settings=settings, weighting="equal", rule="weighted_mean"
    )
    dealt = pool.deal(3, 4, 5.0)
    with (
        closing(ProductionFederation(training, 2, tmp_path, COMMON_LIMIT)) as production,
        closing(Federation(training)) as federation,
    ):
        for version in range(1, 6):
            chosen = dealt.participants(2, 3, version)
            expected = production.play_round(version, chosen)
            found = federation.play_round(version, chosen)
            assert (found.uplink, found.downlink) == (expected.uplink, expected.downlink)
            assert head_digest(federation.head) == production.digest
        for path in (tmp_path / "sites").glob("*.db"):
            stored = SiteState(path).load().private_head
            kept = federation.kept_at(path.stem)
            assert stored == training.private_specification.to_bytes(kept)
            remembered = [array for name, array in kept.items() if name not in head_of(kept)]
            assert all(array.any() for array in remembered)
            assert bool(remembered) == (method != "whitened-memory")


def test_private_heads_of_a_version_are_those_of_a_real_site(pool, tmp_path):
    """Its images come in another order and its groups have other numbers there."""
    training = trainer(pool, "moments", method="one-message", rounds=1, floors=DEFAULT_FLOORS)
    sites = pool.deal(3).sites
    with closing(Federation(training)) as federation:
        federation.play_round(1, sites)
        shared = federation.head
    site, names = sites[0], pool.class_embeddings
    own = LabelledFeatures(pool.embeddings[site.train], pool.labels[site.train], pool.groups[site.train] + 7)
    nothing = LabelledFeatures(pool.embeddings[:0], pool.labels[:0])
    bundle = replace(example_bundle(len(names[0]), len(names)), class_embeddings=names)
    bundle = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, logit_scale=pool.logit_scale))
    with closing(SiteState(tmp_path / "site.db", durable=False)) as state:
        learner = SiteLearner(
            site.name, "bench", bundle, SiteFeatures(own, nothing, nothing, {}, None), state,
            LearnerFiles(tmp_path / "heads.safetensors", tmp_path / "evaluation.json"), 1, "method",
            lambda: (0, 0),
        )  # fmt: skip
        plan = wire_plan(training.plan, pool, derived_key(0, "aggregator"))
        learner.installed(plan, 1, shared, {}, finished=False)
    kept = load_heads(tmp_path / "heads.safetensors", bundle)
    assert head_digest(kept.private) == head_digest(training.own_head(site, shared))


@pytest.mark.parametrize(
    ("method", "floors", "samples"),
    [
        ("fedmedclip", Floors(least_images=40), {50, 52}),
        # What is shared of site-1, and what it weighs, is of one class.
        ("whitened-memory", Floors(least_images_per_class=17, least_images=30), {52, 35, 36}),
    ],
)
def test_floors_are_those_of_the_production_agents(pool, tmp_path, method, floors, samples):
    # A site that sends nothing comes last: before the others have joined, a round would not wait for them.
    dealt = [site for site in pool.deal(3, 5, 5.0).sites if site.name != "site-3"]
    training = trainer(pool, method=method, floors=floors)
    withheld = {site.name for site in dealt if training.contribution(site).withheld}
    assert withheld == {"site-4"}
    assert samples <= {training.contribution(site).samples for site in dealt}
    with (
        closing(ProductionFederation(training, len(dealt), tmp_path, COMMON_LIMIT)) as production,
        closing(Federation(training)) as federation,
    ):
        for version in (1, 2, 3):
            expected = production.play_round(version, dealt)
            found = federation.play_round(version, dealt)
            assert (found.uplink, found.downlink) == (expected.uplink, expected.downlink)
            assert found.uplink["Abstain"] > 0
            assert head_digest(federation.head) == production.digest
        for site in dealt:
            state = SiteState(tmp_path / "sites" / f"{site.name}.db").load()
            private = training.private_specification.to_bytes(federation.private_head(site.name))
            assert state.private_head == private
            assert (state.residual is None) == (site.name in withheld)


def test_a_round_in_which_no_site_may_send_says_so(pool):
    with (
        closing(Federation(trainer(pool, floors=DEFAULT_FLOORS))) as federation,
        pytest.raises(InvalidInputError, match=r"none of 20 sites .* least_images = 64.*floors off"),
    ):
        federation.play_round(1, pool.deal(0, 20, 5.0).sites)


def test_the_cases_above_have_every_way_of_catching_up(pool, monkeypatch):
    found = Counter()
    for codec, limit in (("int8", COMMON_LIMIT), ("lossless", 1280)):
        monkeypatch.setattr(module, "SMALLEST_COMMON_LIMIT", limit)
        dealt = pool.deal(3, 8, 5.0)
        with closing(Federation(trainer(pool, codec, rounds=8, seed=3))) as federation:
            for version in range(1, 9):
                traffic = federation.play_round(version, dealt.participants(2, 3, version))
                found += traffic.uplink + traffic.downlink
    assert {"HeadRequest", "BlockRequest", "Snapshot", "Block"} <= set(found)


def test_bytes_are_the_lengths_of_the_sealed_messages(pool, monkeypatch):
    sealed, received = Counter(), Counter()

    def counting_seal(message, topic, key, identity):
        payload = seal(message, topic, key, identity)
        if "/up/" in topic or "/status/" in topic:
            sealed[type(message).__name__] += len(payload)
        else:
            listeners = 1 if "/down/" in topic else 3
            received[type(message).__name__] += listeners * len(payload)
        return payload

    monkeypatch.setattr(module, "seal", counting_seal)
    sites = pool.deal(0).sites
    uplink, downlink = Counter(), Counter()
    with closing(Federation(trainer(pool))) as federation:
        for version in (1, 2, 3):
            traffic = federation.play_round(version, sites)
            uplink += traffic.uplink
            downlink += traffic.downlink
    assert uplink == sealed
    # The first announcement and the plan were sealed before anybody was there, and are retained for each.
    assert downlink == received
    assert set(sealed) == {"Join", "Status", "Update"}
    assert set(received) == {"Plan", "JoinAnswer", "Announcement", "Receipt"}


def test_only_participants_leave_a_state_and_nothing_is_left_at_the_end(pool, tmp_path):
    dealt = pool.deal(0, 60, 5.0)
    chosen = set()
    with closing(Federation(trainer(pool, rounds=6), tmp_path)) as federation:
        for version in range(1, 7):
            participants = dealt.participants(2, 0, version)
            chosen |= {site.name for site in participants}
            federation.play_round(version, participants)
        assert {path.stem for path in tmp_path.rglob("*.site")} == chosen
        assert len(chosen) > 4
    assert not list(tmp_path.iterdir())


def test_a_masked_layer_that_is_switched_off_keeps_every_row(pool):
    with closing(Federation(trainer(pool, "lossless", masked=False))) as federation:
        federation.play_round(1, pool.deal(0).sites)
        for head in (federation.head, federation.private_head("site-1")):
            thresholds = np.concatenate([head[name] for name in head if name.endswith("threshold")])
            np.testing.assert_allclose(thresholds, -10, rtol=1e-3)
