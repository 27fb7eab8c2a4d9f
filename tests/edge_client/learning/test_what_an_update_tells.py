"""The attacks of the leakage benchmark succeed where it says so, and the default floors keep them from it."""

import numpy as np
import pytest

from benchmarks.privacy.attacks import area_under_curve, class_means, gradients, nearest
from benchmarks.privacy.trial import Trial
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from tests.edge_client.heads.heads_examples import CLASSES, example_data

EMBEDDINGS, LABELS, CAPTIONS = example_data(240, size=96, noise=0.1)
ALL = np.arange(240)
POOL = FeaturePool(
    EMBEDDINGS,
    LABELS,
    tuple(bytes([number]) for number in ALL),
    ALL * 0,
    ALL,
    ("hospital",),
    CAPTIONS,
    12.7,
    None,
)


def trial(method, floors=NO_FLOORS):
    return Trial(POOL, method, TrainingSettings(), floors)


def test_one_image_of_a_class_is_read_off_shared_statistics_and_nothing_of_it_with_floors():
    members = np.array([np.flatnonzero(label == LABELS)[3] for label in range(CLASSES)])
    observed = trial("whitened-memory").observe(members, 0, ["lossless"])["lossless"]
    estimates = np.stack([*class_means(observed.update).values()])
    chosen, cosines = nearest(estimates, EMBEDDINGS.astype(np.float64))
    assert sorted(chosen) == sorted(members)
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
    assert trial("whitened-memory", DEFAULT_FLOORS).observe(members, 0, ["lossless"]) == {}
    frequent = np.flatnonzero(LABELS > 0)[:120]
    for alone in members[:1]:
        images = np.append(frequent, alone)
        kept = trial("whitened-memory", DEFAULT_FLOORS).observe(images, 0, ["lossless"])["lossless"]
        assert 0 not in class_means(kept.update)
        assert kept.images == 120


@pytest.mark.parametrize("method", ["fedmedclip", "fedclip"])
def test_membership_is_certain_in_one_step_and_with_floors_nothing_is_sent(method):
    members = ALL[7:31:2]
    site = trial(method)
    found = site.attack(site.observe(members, 0, ["lossless"])["lossless"], members, ALL)
    assert max(found.membership.values()) > 0.98
    assert trial(method, DEFAULT_FLOORS).observe(members, 0, ["lossless"]) == {}


def test_a_step_of_adamw_is_undone():
    chance = np.random.default_rng(0)
    gradient, weights, settings = (
        chance.normal(size=(5, 7)) * 1e-5,
        chance.normal(size=(5, 7)),
        TrainingSettings(),
    )
    rate = settings.shared_learning_rate
    step = gradient / (np.abs(gradient) + settings.epsilon) + settings.weight_decay * weights
    found = gradients(-rate * step, weights, settings, steps=1)["inverted"] * settings.epsilon
    np.testing.assert_allclose(found, gradient, rtol=1e-6)


def test_the_area_under_the_curve_counts_ties_half():
    members = np.array([True, True, False, False])
    assert area_under_curve(np.array([3.0, 2.0, 1.0, 0.0]), members) == 1
    assert area_under_curve(np.array([0.0, 1.0, 2.0, 3.0]), members) == 0
    assert area_under_curve(np.ones(4), members) == 0.5
