"""What a site's folds say of zero-shot and Gaussians, and what is made of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.gaussians import discriminant, gaussians_of
from fedmedclip.edge_client.heads.scanner_offset import Mixing
from fedmedclip.edge_client.heads.whitening import statistics
from fedmedclip.edge_client.learning.own_folds import (
    DISCRIMINANT_FACTORS,
    DOUBT,
    FOLDS,
    PLACES,
    TO_ANOTHER_SITE,
    WITHOUT_EVIDENCE,
    ZERO_SHOT_FACTORS,
    evidence_array,
    evidence_for,
    evidence_of,
    fold_of_groups,
    gain,
    mixing_by,
)
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, example_data


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_groups_stay_whole_and_their_numbers_do_not_matter(groups, seed):
    groups = np.array(groups)
    folds = fold_of_groups(groups, FOLDS, seed)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    renamed = np.random.default_rng(seed).permutation(13)[groups] * 7 - 3
    np.testing.assert_array_equal(fold_of_groups(renamed, FOLDS, seed), folds)
    number = len(np.unique(groups))
    sizes = np.bincount([folds[groups == group][0] for group in np.unique(groups)], minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1 or number < FOLDS


def test_a_gain_is_the_doubted_log_likelihood_over_a_guess():
    logits, labels = np.random.default_rng(0).normal(size=(9, 4)), np.arange(9) % 4
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.log((1 - DOUBT) * 4 * probabilities[np.arange(9), labels] + DOUBT)
    np.testing.assert_allclose(gain(logits, labels), expected)
    assert gain(np.array([[900.0, 0]]), np.array([1]))[0] == pytest.approx(np.log(DOUBT))


def test_evidence_is_of_gaussians_of_the_other_folds():
    embeddings, labels, captions = example_data(90, noise=0.3)
    groups, zero_shot = np.arange(90) // 2, SCALE * captions.astype(np.float64)
    found = evidence_of(embeddings, labels, groups, zero_shot, 3)
    folds = fold_of_groups(groups, FOLDS, 3)
    place = ZERO_SHOT_FACTORS.index(0.3) * len(DISCRIMINANT_FACTORS) + DISCRIMINANT_FACTORS.index(0.2)
    gains = np.empty(90)
    for fold in range(FOLDS):
        seen = folds != fold
        weights, biases = discriminant(gaussians_of(statistics(embeddings[seen], labels[seen], CLASSES)))
        rows = embeddings[~seen].astype(np.float64)
        gains[~seen] = gain(0.3 * rows @ zero_shot.T + 0.2 * (rows @ weights.T + biases), labels[~seen])
    largest = max(np.log(CLASSES), -np.log(DOUBT))
    assert found[place] == pytest.approx(gains.mean() / largest / np.sqrt(PLACES), rel=1e-4)
    array = evidence_array()
    assert (np.abs(found) <= -array.lowest).all()
    assert array.largest_change == -2 * array.lowest


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_say_nothing(count):
    embeddings, _, captions = example_data(5)
    labels = np.zeros(count, dtype=np.int64)
    assert evidence_of(embeddings[:count], labels, np.arange(count), SCALE * captions, 0) is None


@pytest.mark.filterwarnings("error")
def test_one_group_alone_and_one_class_say_nothing():
    embeddings, labels, captions = example_data(30)
    assert evidence_of(embeddings, labels, np.zeros(30, int), SCALE * captions, 0) is None
    assert evidence_of(embeddings, 0 * labels, np.arange(30), SCALE * captions, 0) is None


def shared_of(gains):
    """Pooled evidence of mean gains by factors."""
    figures = np.array([gains(w, b) for w in ZERO_SHOT_FACTORS for b in DISCRIMINANT_FACTORS])
    return {"evidence": (figures / -np.log(DOUBT) / np.sqrt(PLACES)).astype(np.float32)}


def test_the_mixing_is_where_it_went_best_less_what_another_site_costs():
    mixing, good = mixing_by(shared_of(lambda w, b: 1.0 * ((w, b) == (0.5, 0.4))), CLASSES)
    assert mixing.zero_shot == pytest.approx(0.5 * TO_ANOTHER_SITE[0], rel=1e-3)
    assert mixing.discriminant == pytest.approx(0.4 * TO_ANOTHER_SITE[1], rel=1e-3)
    assert not good
    _, good = mixing_by(shared_of(lambda w, b: w), CLASSES)
    assert good
    assert mixing_by(shared_of(lambda w, b: 0.0), CLASSES) == (WITHOUT_EVIDENCE, True)


def test_sites_that_ask_for_mixings_near_each_other_get_one_between_them():
    wanted = [Mixing(0.12, 0.2), Mixing(0.16, 0.15)]
    shared = {"evidence": np.mean([evidence_for(mixing) for mixing in wanted], axis=0)}
    found, zero_shot_is_good = mixing_by(shared, 4)
    assert 0.08 < found.zero_shot < 0.25
    assert 0.1 < found.discriminant < 0.3
    assert zero_shot_is_good
