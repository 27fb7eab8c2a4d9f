"""What was seen and how far an image lies from it, by the definition and on images of another kind."""

import numpy as np
import pytest

from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.novelty import (
    DIRECTIONS,
    SHRINKAGE,
    Spread,
    novelty_threshold,
    seen_at_site,
    seen_by_federation,
)
from fedmedclip.edge_client.heads.whitening import statistics
from tests.edge_client.heads.heads_examples import CLASSES, SIZE, example_data, example_heads


def test_it_is_mahalanobis_of_the_shrunk_scatter_to_the_nearest_class():
    embeddings, labels, _ = example_data(200)
    rows = embeddings.astype(np.float64)
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(CLASSES)])
    offsets = rows - means[labels]
    scatter = offsets.T @ offsets / len(rows)
    values, vectors = np.linalg.eigh(scatter)
    # Fewer directions than SIZE - 1 are not told apart at this size: the smallest alone stays as it is.
    assert SIZE - 1 <= DIRECTIONS
    inverse = vectors @ np.diag(1 / (values + SHRINKAGE * values.mean())) @ vectors.T
    apart = rows[:, None, :] - means
    expected = np.sqrt(np.einsum("nmd,de,nme->nm", apart, inverse, apart).min(axis=1))
    found = seen_at_site(embeddings, labels, CLASSES).distances(embeddings)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_federations_statistics_say_the_same_where_the_shared_head_has_them():
    embeddings, labels, _ = example_data(200)
    shared = statistics(embeddings, labels, CLASSES)
    of_federation = seen_by_federation(shared)
    of_site = seen_at_site(embeddings, labels, CLASSES)
    np.testing.assert_allclose(of_federation.distances(embeddings), of_site.distances(embeddings), rtol=1e-5)
    assert seen_by_federation({name: np.zeros_like(array) for name, array in shared.items()}) is None
    assert seen_by_federation(example_heads()[0]) is None


def test_directions_that_are_not_told_apart_share_what_the_trace_leaves():
    generator = np.random.default_rng(3)
    rows = generator.normal(size=(400, 100)) * np.linspace(3, 0.1, 100)
    covariance = np.cov(rows.T, bias=True)
    spread = Spread.of(covariance, float(np.trace(covariance)))
    assert spread.vectors.shape == (100, DIRECTIONS)
    total = (spread.vectors.astype(np.float64) ** 2).sum() + (100 - DIRECTIONS) * spread.elsewhere
    assert total == pytest.approx(np.trace(covariance), rel=1e-5)


def test_images_of_another_kind_lie_beyond_the_threshold_and_their_like_seldom():
    embeddings, labels, _ = example_data(1200, noise=0.1)
    seen = seen_at_site(embeddings[:600], labels[:600], CLASSES)
    limit, share = novelty_threshold(seen.distances(embeddings[600:800]), np.arange(200), 0.01)
    assert share == 0.01
    assert (seen.distances(embeddings[800:]) > limit).mean() < 0.03
    others = unit_rows(np.random.default_rng(9).normal(size=(100, SIZE)).astype(np.float32))
    assert (seen.distances(others) > limit).mean() > 0.95


def test_few_groups_promise_less_and_very_few_nothing():
    distances = np.linspace(1, 2, 40)
    assert novelty_threshold(distances, np.arange(40), 0.01) == (2.0, pytest.approx(1 / 41))
    assert novelty_threshold(distances, np.arange(40) // 4, 0.01) == (2.0, pytest.approx(1 / 11))
    assert novelty_threshold(distances, np.arange(40) // 5, 0.01) is None
    assert novelty_threshold(distances[:0], np.arange(0), 0.01) is None


def test_one_image_of_one_class_is_enough_to_say_something():
    embeddings, labels, _ = example_data(1)
    found = seen_at_site(embeddings, labels, CLASSES).distances(example_data(5)[0])
    assert np.isfinite(found).all()


def test_of_very_many_classes_each_is_there():
    labels = np.arange(2000)
    embeddings = unit_rows(np.random.default_rng(4).normal(size=(2000, SIZE)).astype(np.float32))
    assert len(seen_at_site(embeddings, labels, 2000).means) == 2000
    assert len(seen_by_federation(statistics(embeddings, labels, 2000)).means) == 2000
