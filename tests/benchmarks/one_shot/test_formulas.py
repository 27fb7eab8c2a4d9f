"""The one-shot methods of others say what their papers' formulas say."""

from functools import reduce

import numpy as np
import pytest

from benchmarks.one_shot.afl import AFL, GAMMA, aggregate
from benchmarks.one_shot.fed3r import Fed3R
from benchmarks.one_shot.fedcgs import FedCGS
from benchmarks.one_shot.fedcof import FedCOF, class_covariance, means_by_class
from benchmarks.one_shot.linear import RIDGES, System

CLASSES, SIZE = 3, 6


@pytest.fixture
def images():
    """Embeddings, labels and three uneven sites, of which one lacks a class."""
    draw = np.random.default_rng(1)
    labels = draw.integers(0, CLASSES, 120)
    embeddings = draw.normal(size=(120, SIZE)) + 2 * np.eye(SIZE)[labels]
    sites = np.where(labels == 2, draw.integers(1, 3, 120), draw.integers(0, 3, 120))
    return embeddings, labels, [np.flatnonzero(sites == site) for site in range(3)]


def sent(peer, images, parts=1):
    embeddings, labels, sites = images
    return [peer.of_site(embeddings[site], labels[site], CLASSES, parts) for site in sites]


def one_hot(labels):
    return np.eye(CLASSES)[labels]


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_fed3r_is_the_ridge_regression_of_all_images_in_one_place(images, ridge):
    embeddings, labels, _ = images
    gram = embeddings.T @ embeddings
    pooled = np.linalg.solve(
        gram + ridge * np.trace(gram) / SIZE * np.eye(SIZE), embeddings.T @ one_hot(labels)
    ).T
    found = Fed3R().classifiers(sent(Fed3R(), images))[ridge]
    np.testing.assert_allclose(found.weights, pooled / np.linalg.norm(pooled, axis=1, keepdims=True))
    assert not found.offsets.any()


def test_afl_is_the_least_squares_of_all_images_in_one_place(images):
    embeddings, labels, _ = images
    pooled = np.linalg.lstsq(embeddings, one_hot(labels), rcond=None)[0]
    found = AFL().classifiers(sent(AFL(), images))
    np.testing.assert_allclose(found[0.0].weights, pooled.T, rtol=1e-8, atol=1e-12)
    gram = embeddings.T @ embeddings
    for ridge in RIDGES:
        kept = ridge * np.trace(gram) / SIZE * np.eye(SIZE)
        with_ridge = np.linalg.solve(gram + kept, embeddings.T @ one_hot(labels))
        np.testing.assert_allclose(found[ridge].weights, with_ridge.T, rtol=1e-7, atol=1e-12)


def test_the_absolute_aggregation_law_is_that_of_the_paper_in_any_order(images):
    first, second, third = [(site.arrays["C"], site.arrays["W"].T) for site in sent(AFL(), images)]
    ratio = np.linalg.solve(first[0], second[0])
    inverse = np.linalg.inv(first[0] + second[0])
    of_first = np.eye(SIZE) - ratio + ratio @ inverse @ second[0]
    ratio = np.linalg.inv(ratio)
    of_second = np.eye(SIZE) - ratio + ratio @ inverse @ first[0]
    matrix, weights = aggregate(first, second)
    np.testing.assert_allclose(weights, of_first @ first[1] + of_second @ second[1], atol=1e-10)
    forwards, backwards = reduce(aggregate, [first, second, third]), reduce(aggregate, [third, second, first])
    np.testing.assert_allclose(forwards[1], backwards[1], atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 2 * GAMMA


def test_fedcgs_is_the_linear_discriminant_with_the_covariance_of_all_images(images):
    embeddings, labels, _ = images
    inverse = np.linalg.inv(np.cov(embeddings.T))
    means = np.stack([embeddings[labels == label].mean(axis=0) for label in range(CLASSES)])
    prior = np.log(np.bincount(labels) / len(labels))
    expected = embeddings @ inverse @ means.T - np.diag(means @ inverse @ means.T) / 2 + prior
    found = FedCGS().classifiers(sent(FedCGS(), images))[0.0]
    np.testing.assert_allclose(embeddings @ found.weights.T + found.offsets, expected, atol=1e-9)


def test_fedcgs_never_answers_with_a_class_that_no_site_has(images):
    embeddings, labels, sites = images
    there = labels != 2
    remaining = [site[there[site]] for site in sites]
    found = FedCGS().classifiers(sent(FedCGS(), (embeddings, labels, remaining)))[0.0]
    assert set(found.answers(embeddings)) == {0, 1}


def test_fedcof_estimates_a_class_covariance_without_bias():
    draw = np.random.default_rng(2)
    root = draw.normal(size=(3, 3))
    numbers = np.array([1, 4, 9, 30])
    estimates = [
        class_covariance(
            np.stack([(draw.normal(size=(count, 3)) @ root).mean(axis=0) for count in numbers]),
            numbers.astype(np.float64),
        )
        for _ in range(4000)
    ]
    spread = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    # Without K - 1 in place of K it would be off by a quarter, many times as far.
    np.testing.assert_array_less(np.abs(np.mean(estimates, axis=0) - root.T @ root), 4 * spread)


def test_fedcof_with_a_mean_of_each_image_has_their_own_covariance(images):
    embeddings, labels, _ = images
    everyone = [np.arange(len(labels))]
    means, numbers = means_by_class(sent(FedCOF(), (embeddings, labels, everyone), parts=len(labels)))
    for label in range(CLASSES):
        members = embeddings[labels == label]
        np.testing.assert_allclose(class_covariance(means[label], numbers[label]), np.cov(members.T))


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_fedcof_solves_for_the_sums_with_the_scatter_that_the_means_say(images, parts):
    embeddings, labels, sites = images
    of_class = np.bincount(labels)
    gram = len(labels) * np.outer(embeddings.mean(axis=0), embeddings.mean(axis=0))
    scatter = np.zeros((SIZE, SIZE))
    for label in range(CLASSES):
        of_parts = [
            embeddings[site][labels[site] == label][part::parts] for site in sites for part in range(parts)
        ]
        there = [part for part in of_parts if len(part)]
        centre = embeddings[labels == label].mean(axis=0)
        between = sum(
            len(part) * np.outer(part.mean(axis=0) - centre, part.mean(axis=0) - centre) for part in there
        )
        scatter += (of_class[label] - 1) * between / (len(there) - 1)
    gamma = 0.1
    gram += scatter + gamma * np.trace(scatter) / SIZE * np.eye(SIZE)
    expected = np.linalg.solve(gram, embeddings.T @ one_hot(labels)).T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = FedCOF().classifiers(sent(FedCOF(), images, parts))[gamma]
    np.testing.assert_allclose(found.weights, expected, rtol=1e-7)


def test_a_matrix_that_quantisation_made_indefinite_is_solved_with_what_is_positive():
    system = System(np.diag([4.0, -1.0, 0.0]))
    assert system.solve(np.ones((3, 1)), 0.0)[:, 0].tolist() == [0.25, 0.0, 0.0]
    assert system.solve(np.ones((3, 1)), 1.0)[:, 0].tolist() == [0.2, 1.0, 1.0]
