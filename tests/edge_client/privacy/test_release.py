"""The guarantee: how far one image or patient moves what is released, and how much noise lies over it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.privacy.mechanism import noise_multiplier
from fedmedclip.edge_client.privacy.release import (
    Terms,
    bounded_sum,
    private_statistics,
    private_sums,
)
from fedmedclip.edge_client.privacy.sums import LONGEST, added, length_of, sums_of
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.privacy.examples import CLASSES, example_space, sites

SPACE = example_space()
ROUNDING = 1e-9


def moved_by_leaving_out(site, left_out, terms):
    embeddings, labels, groups = site
    whole = bounded_sum(embeddings, labels, groups, CLASSES, SPACE, terms)
    kept = ~left_out
    rest = bounded_sum(embeddings[kept], labels[kept], groups[kept], CLASSES, SPACE, terms)
    return np.linalg.norm(whole - rest)


@settings(max_examples=200, deadline=None)
@given(sites(), st.data())
def test_no_image_moves_the_sum_farther_than_the_bound(site, data):
    left_out = np.arange(len(site[1])) == data.draw(st.integers(0, len(site[1]) - 1))
    assert moved_by_leaving_out(site, left_out, Terms(1.0, 1e-5)) <= LONGEST + ROUNDING


@settings(max_examples=200, deadline=None)
@given(sites(), st.data(), st.integers(1, 5))
def test_no_patient_moves_the_sum_farther_than_the_bound(site, data, images_per_patient):
    terms = Terms(1.0, 1e-5, "patient", images_per_patient)
    left_out = site[2] == data.draw(st.sampled_from(sorted(set(site[2].tolist()))))
    assert moved_by_leaving_out(site, left_out, terms) <= LONGEST + ROUNDING


def test_the_bound_is_reached_and_no_larger_than_it_must_be():
    outside = (SPACE.centre + 5 * SPACE.radius * SPACE.directions[:, 0])[None].astype(np.float32)
    site = outside, np.array([1]), np.array([0])
    assert moved_by_leaving_out(site, np.array([True]), Terms(1.0, 1e-5)) == pytest.approx(LONGEST)


def test_sums_are_those_of_the_images():
    draw = np.random.default_rng(3)
    coordinates = 0.1 * draw.normal(size=(30, SPACE.directions.shape[1]))
    rows = SPACE.embeddings_of(coordinates).astype(np.float32)
    labels, groups = draw.integers(0, CLASSES, 30), np.zeros(30, np.int64)
    total = bounded_sum(rows, labels, groups, CLASSES, SPACE, Terms(1.0, 1e-5))
    sums = sums_of(total, CLASSES, SPACE.directions.shape[1], 0.0)
    assert sums.counts == pytest.approx(np.bincount(labels, minlength=CLASSES))
    for label in range(CLASSES):
        assert sums.sums[label] == pytest.approx(coordinates[labels == label].sum(axis=0), abs=1e-5)
    assert sums.moment == pytest.approx(coordinates.T @ coordinates, abs=1e-5)
    assert sums.images == pytest.approx(30)


@pytest.mark.parametrize(("part", "noise_share"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.1)])
def test_noise_is_as_large_as_the_mechanism_asks_for(part, noise_share):
    terms = Terms(2.0, 1e-5, part=part, noise_share=noise_share)
    draws = np.random.default_rng(0)
    nobody = np.zeros((0, 8), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    numbers = np.array([private_sums(*nobody, CLASSES, SPACE, terms, draws).sums for _ in range(2000)])
    expected = noise_multiplier(2.0, 1e-5) * LONGEST * np.sqrt(noise_share / part)
    assert numbers.std() == pytest.approx(expected, rel=0.03)
    assert abs(numbers.mean()) < 0.05 * expected


def test_parts_of_a_budget_compose_to_it():
    """Gaussian releases compose by the squares of what a multiplier leaves: 1/s^2 adds up."""
    whole = Terms(3.0, 1e-6).deviation(1.0)
    parts = [Terms(3.0, 1e-6, part=part).deviation(1.0) for part in (0.3, 0.7)]
    assert sum(one**-2 for one in parts) == pytest.approx(whole**-2)


def test_sums_of_sites_are_those_of_their_images_together():
    embeddings, labels, groups = next_site()
    quiet = Terms(1.0, 1e-5, noise_share=0.0)
    parts = [
        private_sums(
            embeddings[part], labels[part], groups[part], CLASSES, SPACE, quiet, np.random.default_rng(0)
        )
        for part in (slice(10), slice(10, None))
    ]
    whole = private_sums(embeddings, labels, groups, CLASSES, SPACE, quiet, np.random.default_rng(0))
    assert added(parts).sums == pytest.approx(whole.sums)
    assert added(parts).moment == pytest.approx(whole.moment)
    assert added(parts).images == pytest.approx(40)
    noisy = [replace(part, deviation=deviation) for part, deviation in zip(parts, (3, 4), strict=True)]
    assert added(noisy).deviation == pytest.approx(5)


def test_the_same_noise_gives_the_same_release_and_other_noise_another():
    site = next_site()
    terms = Terms(1.0, 1e-5)
    releases = [
        private_statistics(*site, CLASSES, SPACE, terms, np.random.default_rng(seed)) for seed in (1, 1, 2)
    ]
    (first, images), (again, same_images), (other, _) = releases
    assert images == same_images
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["class_sums"], other["class_sums"])


def test_a_site_without_images_tells_noise_and_at_least_one_image():
    nobody = np.zeros((0, 8), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64)
    arrays, images = private_statistics(*nobody, CLASSES, SPACE, Terms(1.0, 1e-5), np.random.default_rng(0))
    assert images >= 1
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in arrays.values())


def test_a_patient_counts_once_however_many_images():
    rows = np.repeat(SPACE.embeddings_of(SPACE.class_means[:1]), 6, axis=0).astype(np.float32)
    labels = np.zeros(6, np.int64)
    terms = Terms(1.0, 1e-5, "patient", 6)
    one = bounded_sum(rows, labels, np.zeros(6, np.int64), CLASSES, SPACE, terms)
    many = bounded_sum(rows, labels, np.arange(6), CLASSES, SPACE, terms)
    assert np.linalg.norm(one) == pytest.approx(LONGEST)
    assert np.linalg.norm(many) > 3 * np.linalg.norm(one)
    assert len(one) == length_of(CLASSES, SPACE.directions.shape[1])


def test_terms_without_meaning_are_refused():
    with pytest.raises(InvalidInputError, match="epsilon"):
        Terms(0.0, 1e-5).deviation(1.0)


def next_site():
    draw = np.random.default_rng(5)
    rows = draw.normal(size=(40, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), draw.integers(0, CLASSES, 40), np.arange(40)
