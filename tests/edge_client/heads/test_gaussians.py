"""The federation's Gaussians against dense formulas, and what is no statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.gaussians import (
    DIRECTIONS,
    SHRINKAGE,
    discriminant,
    gaussians_of,
    statistics_arrived,
)
from fedmedclip.edge_client.heads.whitening import statistics
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests.edge_client.heads.heads_examples import CLASSES, SIZE, example_data

LOOSE = {"rtol": 1e-4, "atol": 1e-4}


def example(count=200, classes=CLASSES, size=SIZE, **options):
    embeddings, labels, _ = example_data(count, size=size, classes=classes, noise=0.3, **options)
    return embeddings, labels, statistics(embeddings, labels, classes)


def covariance_of(shared):
    """What is inverted: the leading directions of the scatter, the rest of its trace even, and shrinkage."""
    scatter, spread = shared["scatter"].astype(np.float64), float(shared["spread"][0])
    values, vectors = np.linalg.eigh(scatter)
    leading, size = vectors[:, -DIRECTIONS:], len(scatter)
    rest = (spread - values[-DIRECTIONS:].sum()) / max(size - DIRECTIONS, 1)
    even = np.eye(size) - leading @ leading.T
    return (
        leading @ np.diag(values[-DIRECTIONS:]) @ leading.T
        + rest * even
        + SHRINKAGE * spread / size * np.eye(size)
    )


def test_the_metric_is_the_inverse_of_the_regularised_scatter():
    _, _, shared = example()
    np.testing.assert_allclose(gaussians_of(shared).metric, np.linalg.inv(covariance_of(shared)), **LOOSE)


def test_the_discriminant_is_the_difference_of_gaussian_log_densities():
    embeddings, _, shared = example()
    found = gaussians_of(shared)
    weights, biases = discriminant(found)
    logits = embeddings @ weights.T + biases
    inverse = np.linalg.inv(covariance_of(shared))
    offsets = embeddings[:, None].astype(np.float64) - found.means
    densities = -np.einsum("ncd,de,nce->nc", offsets, inverse, offsets) / 2
    between = [rows - rows[:, :1] for rows in (logits, densities)]
    np.testing.assert_allclose(*between, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [2, DIRECTIONS])
def test_with_few_dimensions_the_whole_scatter_is_used(size):
    """As scikit-learn's linear discriminant analysis has it, with the same covariance."""
    embeddings, labels, shared = example(size=size, classes=3)
    covariance = shared["scatter"] + SHRINKAGE * shared["spread"][0] / size * np.eye(size)
    means = np.array([embeddings[labels == label].mean(axis=0) for label in range(3)], np.float64)
    coefficients = np.linalg.solve(covariance.astype(np.float64), means.T).T
    weights, biases = discriminant(gaussians_of(shared))
    np.testing.assert_allclose(weights, coefficients, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(biases, -(coefficients * means).sum(axis=1) / 2, rtol=1e-3, atol=1e-3)


def test_a_class_that_no_site_has_is_as_likely_as_the_others_are_on_average():
    embeddings, labels, _ = example()
    there = labels != 2
    found = gaussians_of(statistics(embeddings[there], labels[there], CLASSES))
    assert found.present.tolist() == [True, True, False, True]
    weights, biases = discriminant(found)
    logits = embeddings @ weights.T + biases
    np.testing.assert_allclose(logits[:, 2], logits[:, found.present].mean(axis=1), atol=1e-4)


def test_version_0_one_class_and_half_a_message_are_no_gaussians():
    embeddings, labels, shared = example()
    nothing = initial_shared_head("one-message", SIZE, 0, CLASSES)
    assert gaussians_of(nothing) is None
    assert gaussians_of(statistics(embeddings[:5], 0 * labels[:5], CLASSES)) is None
    for name, factor in (("class_shares", 0.5), ("class_sums", 3), ("spread", -1), ("spread", 20)):
        broken = shared | {name: (shared[name] * factor).astype(np.float32)}
        assert not statistics_arrived(broken)
        assert gaussians_of(broken) is None


@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_whatever_unit_embeddings_say_is_finite(classes, size, count, seed):
    draw = np.random.default_rng(seed)
    embeddings = draw.normal(size=(count, size)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    # Copies leave a scatter of nothing.
    embeddings[: count // 2] = embeddings[0]
    found = gaussians_of(statistics(embeddings, draw.integers(0, classes, count), classes))
    if found is not None:
        assert all(np.isfinite(part).all() for part in (*discriminant(found), found.metric))
