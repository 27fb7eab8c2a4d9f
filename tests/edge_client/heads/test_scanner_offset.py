"""Expectation maximisation against a naive one in all D dimensions, and what it recovers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.gaussians import discriminant, gaussians_of
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.scanner_offset import (
    CENTRING,
    NOT_LABELLED,
    STEPS,
    Mixing,
    agreement,
    fit_offset,
    softmax_doubles,
    unadapted,
)
from fedmedclip.edge_client.heads.whitening import statistics
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_data

MIXING = Mixing(0.3, 0.2, CENTRING)


def federation(missing=None, count=300, noise=0.2):
    embeddings, labels, captions = example_data(count, noise=noise)
    there = labels != missing
    found = gaussians_of(statistics(embeddings[there], labels[there], CLASSES))
    return found, SCALE * captions.astype(np.float64)


def site(count=80, shift=0.5, seed=7, noise=0.2):
    """Images of the same classes as another scanner shows them: their labels, and the offset."""
    _, _, captions = example_data(1)
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, count)
    # Towards a class, as what misleads most.
    offset = shift * captions[0]
    rows = captions[labels] + noise * draw.normal(size=(count, SIZE)) + offset
    return unit_rows(rows.astype(np.float32)), labels, offset


def naive(gaussians, mixing, zero_shot, embeddings, labels):
    """The module's formulas, written out, in D dimensions."""
    x, classes = embeddings.astype(np.float64), len(zero_shot)
    weights, biases = discriminant(gaussians)

    def logits(offset, prior):
        moved = x - mixing.centring * offset
        cosines = moved / np.linalg.norm(moved, axis=1, keepdims=True) @ zero_shot.T
        told = (x - offset) @ weights.T + biases
        return mixing.zero_shot * cosines + mixing.discriminant * told + np.log(prior)

    damping = len(x) / (len(x) + 8)
    offset, prior = np.zeros(x.shape[1]), np.full(classes, 1 / classes)
    known = labels != NOT_LABELLED
    for _ in range(STEPS):
        q = softmax_doubles(logits(offset, prior))
        q[known] = np.eye(classes)[labels[known]]
        n = q.mean(axis=0)
        there = np.where(gaussians.present, n, 0)
        offset = damping * (x.mean(axis=0) - there @ gaussians.means / there.sum())
        unlabelled = n if known.all() else q[~known].mean(axis=0)
        prior = damping * unlabelled / 2 + (1 - damping / 2) / classes
    told = logits(offset, prior)
    return offset, prior, told, softmax_doubles(told)


@pytest.mark.parametrize("missing", [None, 1])
@pytest.mark.parametrize("labelled", [0, 9, 80])
def test_it_is_the_naive_recursion_and_its_head_gives_the_same_logits(missing, labelled):
    gaussians, zero_shot = federation(missing)
    embeddings, truth, _ = site()
    labels = np.where(np.arange(len(truth)) < labelled, truth, NOT_LABELLED)
    found = fit_offset(gaussians, MIXING, zero_shot, embeddings, labels)
    offset, prior, logits, probabilities = naive(gaussians, MIXING, zero_shot, embeddings, labels)
    np.testing.assert_allclose(found.offset, offset, atol=1e-9)
    np.testing.assert_allclose(found.prior, prior, atol=1e-9)
    np.testing.assert_allclose(found.head.logits(embeddings), logits, atol=1e-8)
    np.testing.assert_allclose(found.probabilities, probabilities, atol=1e-9)


def test_the_offset_of_a_scanner_is_found_without_any_label():
    gaussians, zero_shot = federation()
    embeddings, truth, shift = site(200, shift=0.5)
    nobody = np.full(200, NOT_LABELLED)
    found = fit_offset(gaussians, MIXING, zero_shot, embeddings, nobody)
    direction = found.offset @ shift / np.linalg.norm(found.offset) / np.linalg.norm(shift)
    assert direction > 0.9
    plain = unadapted(gaussians, Mixing(MIXING.zero_shot, MIXING.discriminant), zero_shot)
    right, before = ((head.logits(embeddings).argmax(axis=1) == truth).mean() for head in (found.head, plain))
    assert right > before + 0.03
    assert found.separation > 0.6


def test_the_separation_is_the_slope_of_own_means_on_the_federations():
    gaussians, zero_shot = federation()
    embeddings, truth, _ = site(400, shift=0.0, noise=0.02)
    found = fit_offset(gaussians, MIXING, zero_shot, embeddings, truth)
    q = found.probabilities
    own = q.T @ embeddings / q.sum(axis=0)[:, None]
    centred = [means - means.mean(axis=0) for means in (own, gaussians.means)]
    metric = gaussians.metric
    slope = np.trace(centred[0] @ metric @ centred[1].T) / np.trace(centred[1] @ metric @ centred[1].T)
    assert found.separation == pytest.approx(1 + 400 / 408 * (slope - 1), abs=1e-6)
    together = unit_rows((embeddings.mean(axis=0) + 0.05 * embeddings).astype(np.float32))
    assert fit_offset(gaussians, MIXING, zero_shot, together, truth).separation < 0.3


def test_labels_are_kept_and_their_shares_are_no_prior():
    """Who was labelled says nothing of what is frequent."""
    gaussians, zero_shot = federation()
    embeddings, truth, _ = site(90)
    labels = np.where(truth == 0, 0, NOT_LABELLED)
    found = fit_offset(gaussians, MIXING, zero_shot, embeddings, labels)
    assert found.prior[0] < 0.2
    everything = fit_offset(gaussians, MIXING, zero_shot, embeddings, truth)
    np.testing.assert_allclose(everything.shares, np.bincount(truth, minlength=CLASSES) / 90)


def test_a_class_that_no_site_has_does_not_move_the_offset():
    gaussians, zero_shot = federation(missing=1)
    embeddings, truth, _ = site(60, shift=0.0)
    only = embeddings[truth == 1]
    found = fit_offset(gaussians, MIXING, zero_shot, only, np.full(len(only), 1))
    assert np.array_equal(found.offset, np.zeros(SIZE))


def test_agreement_is_cohens_kappa():
    one, other = np.eye(2)[[0, 0, 0, 1, 1, 1, 1, 1]], np.eye(2)[[0, 0, 1, 1, 1, 1, 1, 0]]
    # 6 of 8 alike, by chance 3/8 * 3/8 + 5/8 * 5/8.
    assert agreement(one, other) == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))
    assert agreement(one, one) == 1
    assert agreement(np.eye(2)[[0, 0]], np.eye(2)[[0, 0]]) == 1


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 9), st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_few_images_in_any_dimensions_give_finite_heads(classes, size, count, seed):
    draw = np.random.default_rng(seed)
    rows = unit_rows(draw.normal(size=(40, size)).astype(np.float32))
    gaussians = gaussians_of(statistics(rows, draw.integers(0, classes, 40), classes))
    if gaussians is None:
        return
    embeddings = rows[:count]
    embeddings[: count // 2] = embeddings[0]
    labels = draw.integers(-1, classes, count)
    zero_shot = SCALE * unit_rows(draw.normal(size=(classes, size)))
    found = fit_offset(gaussians, MIXING, zero_shot, embeddings, labels)
    head = found.head
    for part in (head.directions, head.centring, head.weights, head.biases, found.shares):
        assert np.isfinite(part).all()
    assert np.isfinite(found.separation)
    assert np.isfinite(head.logits(embeddings)).all()
