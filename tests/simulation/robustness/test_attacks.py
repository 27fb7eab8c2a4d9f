"""Each attack against its formula, and what hostile sites may do besides."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.codecs.error_feedback import norm_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.robustness.attacks import (
    ATTACKS,
    Attackers,
    attack_choices,
    attack_named,
    hostile_sites,
    z_max,
)

LIMIT = 50.0


def updates(count, seed=0):
    draw = np.random.default_rng(seed)
    return [
        {
            "weight": draw.normal(size=(4, 3)).astype(np.float32),
            "bias": draw.normal(size=3).astype(np.float32),
        }
        for _ in range(count)
    ]


def forged(name, hostile=("b",), round_number=1, honest=4):
    own, *others = updates(honest + 1)
    attackers = Attackers(attack_named(name), frozenset(hostile), 0, LIMIT)
    return own, others, attackers.forge("b", round_number, own, others)


def test_a_flipped_sign():
    own, _, sent = forged("sign-flip:strength=2")
    assert all(np.array_equal(sent[name], -2 * own[name]) for name in own)


def test_a_scaled_update_is_as_long_as_just_counts():
    own, _, sent = forged("scale")
    assert 0.99 * LIMIT < norm_of(sent) < LIMIT
    assert np.allclose(sent["bias"] / norm_of(sent), own["bias"] / norm_of(own))


def test_noise_is_new_in_each_round_and_the_same_in_each_run():
    own, _, sent = forged("noise")
    assert norm_of(sent) == pytest.approx(10 * norm_of(own), rel=1e-4)
    assert np.array_equal(sent["weight"], forged("noise")[2]["weight"])
    assert not np.array_equal(sent["weight"], forged("noise", round_number=2)[2]["weight"])


def test_inner_product_manipulation():
    _, honest, sent = forged("ipm:strength=0.5")
    for name in sent:
        assert np.allclose(sent[name], -0.5 * np.mean([update[name] for update in honest], axis=0))


@pytest.mark.parametrize(("hostile", "honest", "z"), [(1, 4, 1.5), (24, 26, 1.5), (10, 15, 1.5), (6, 7, 1.5)])
def test_a_little_is_enough(hostile, honest, z):
    _, others, sent = forged("alie", hostile=[str(number) for number in range(hostile)], honest=honest)
    z = max(z, z_max(hostile + honest, hostile))
    for name in sent:
        stacked = np.stack([update[name].astype(np.float64) for update in others])
        assert np.allclose(sent[name], stacked.mean(axis=0) - z * stacked.std(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("sites", "hostile", "z"),
    [(50, 24, 1.426), (25, 5, 0.253), (5, 1, 0.0), (10, 1, -0.140), (50, 12, 0.336)],
)
def test_z_max(sites, hostile, z):
    assert z_max(sites, hostile) == pytest.approx(z, abs=1e-3)


@given(sites=st.integers(2, 60), data=st.data())
def test_z_max_is_the_quantile_that_leaves_supporters_enough(sites, data):
    hostile = data.draw(st.integers(1, sites - 1))
    z, honest = z_max(sites, hostile), sites - hostile
    supporters = sites // 2 + 1 - hostile
    if math.isfinite(z):
        assert NormalDist().cdf(z) == pytest.approx((honest - supporters) / honest)
    else:
        assert (z > 0) == (supporters <= 0)


def test_flipped_labels_are_all_wrong_and_only_at_hostile_sites(pool):
    trainer = Trainer(FederationPlan("fedmedclip", "int8", "int8", 1, 0), pool)
    for name in ("label-flip", "samples"):
        flipped = Attackers(attack_named(name), frozenset("b"), 0, LIMIT).trainer(trainer)
        assert not np.any(flipped.pool.labels == pool.labels)
        assert set(flipped.pool.labels.tolist()) == set(pool.labels.tolist())
    assert trainer.pool is pool
    assert Attackers(attack_named("ipm"), frozenset("b"), 0, LIMIT).trainer(trainer) is trainer


def test_who_trains_on_wrong_labels_delivers_what_it_learned(pool):
    site = pool.deal(0).sites[0]
    assert forged("label-flip")[2] is None
    assert forged("samples")[2] is None
    claims = {
        name: Attackers(attack, frozenset("b"), 0, LIMIT).claimed_samples(site)
        for name, attack in ATTACKS.items()
    }
    assert claims.pop("samples") == 10**9
    assert set(claims.values()) == {len(site.train)}


def test_the_same_sites_are_hostile_whatever_they_do():
    names = [f"site-{number}" for number in range(5)]
    assert hostile_sites(names, 2, 7) == hostile_sites(names, 2, 7) > hostile_sites(names, 1, 7)
    assert len({hostile_sites(names, 1, seed) for seed in range(20)}) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sign_flip", "unknown attack 'sign_flip'; did you mean 'sign-flip'"),
        ("alei", "did you mean 'alie'"),
        ("", "--attacks is empty"),
        ("ipm:epsilon=1", "only strength can be set"),
        ("samples:strength=3", "'samples' has no strength"),
        ("ipm:strength=much", "give a strength from 0"),
        ("ipm:strength=nan", "give a strength from 0"),
        ("ipm:strength=-1", "give a strength from 0"),
    ],
)
def test_attacks_that_there_are_not(text, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        attack_choices(text)
    assert "\n" not in str(caught.value)


def test_a_list_of_attacks():
    found = attack_choices("none, ipm ,ipm:strength=0.5,ipm")
    assert [(attack.name, attack.strength) for attack in found] == [("ipm", 10.0), ("ipm:strength=0.5", 0.5)]
    assert attack_choices("none") == []
