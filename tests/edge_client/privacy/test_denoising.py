"""From noisy sums to statistics: exact where there is no noise, sane where there is nothing but noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.whitening import arrived
from fedmedclip.edge_client.privacy.denoising import denoised, public_statistics
from fedmedclip.edge_client.privacy.mixing import DISCRIMINANT, ZERO_SHOT, mixing_factors
from fedmedclip.edge_client.privacy.public_space import space_of
from fedmedclip.edge_client.privacy.release import Terms, private_sums
from fedmedclip.edge_client.privacy.sums import length_of, sums_of
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.privacy.examples import CLASSES, SIZE, example_images, example_space, unit_rows

CAPTIONS = unit_rows(np.random.default_rng(0).normal(size=(CLASSES, SIZE)))
SPACE = example_space()
DIRECTIONS = SPACE.directions.shape[1]


def told(images, epsilon, seed=0, labels=None):
    rows, own = example_images(images, 7, CAPTIONS)
    own = own if labels is None else labels
    terms = Terms(epsilon, 1e-5)
    return private_sums(rows, own, np.arange(images), CLASSES, SPACE, terms, np.random.default_rng(seed))


def test_directions_are_those_in_which_classes_differ():
    assert DIRECTIONS == CLASSES - 1
    assert SPACE.directions.T @ SPACE.directions == pytest.approx(np.eye(DIRECTIONS))
    apart = SPACE.class_means[:, None] - SPACE.class_means[None]
    assert np.linalg.norm(apart, axis=2)[~np.eye(CLASSES, dtype=bool)].min() > 0.5
    assert SPACE.directions.T @ SPACE.across == pytest.approx(0, abs=1e-9)


def test_clipped_coordinates_lie_in_the_unit_ball_and_most_stay_as_they_are():
    rows, _ = example_images(60, 0, CAPTIONS)
    lengths = np.linalg.norm(SPACE.clipped(rows), axis=1)
    assert lengths.max() <= 1 + 1e-9
    assert 0.8 < (lengths < 1 - 1e-9).mean() < 0.95


@pytest.mark.parametrize("classes", [1, 2])
def test_a_space_needs_classes_and_images(classes):
    with pytest.raises(InvalidInputError, match="fedmedclip reference"):
        space_of(CAPTIONS[:1] if classes == 2 else CAPTIONS, CAPTIONS[:classes], 10.0)


def test_without_noise_statistics_are_the_site_s():
    images = 3000
    rows, labels = example_images(images, 7, CAPTIONS)
    arrays = denoised(told(images, 1e6), SPACE)
    assert arrays["class_shares"] == pytest.approx(np.bincount(labels) / images, abs=1e-3)
    means = arrays["class_sums"] / arrays["class_shares"][:, None]
    inside = SPACE.clipped(rows)
    for label in range(CLASSES):
        told_mean = (means[label] - SPACE.centre) @ SPACE.directions / SPACE.radius
        assert told_mean == pytest.approx(inside[labels == label].mean(axis=0), abs=0.02)
    assert arrays["spread"][0] == pytest.approx(np.trace(arrays["scatter"]), rel=1e-5)
    assert arrived(arrays)


def test_class_means_are_drawn_to_zero_shot_s_only_by_noise():
    """Labels that say nothing put all class means in one place; zero-shot's lie apart."""

    def apart(epsilon):
        found = []
        for seed in range(20):
            arrays = denoised(told(300, epsilon, seed, labels=np.arange(300) // 100), SPACE)
            assert arrays["class_shares"].min() > 0.01
            means = arrays["class_sums"] / arrays["class_shares"][:, None]
            found.append(np.linalg.norm(means - means.mean(axis=0)))
        return np.mean(found)

    assert apart(50) < 0.2 * np.linalg.norm(SPACE.class_means - SPACE.class_means.mean(axis=0)) * SPACE.radius


def test_noise_does_not_make_class_means_of_nothing():
    """Less than half of the noise is left in the class means where zero-shot is right about the classes."""
    errors = []
    for seed in range(20):
        sums = told(90, 0.5, seed)
        means = sums.sums / np.maximum(sums.counts, 1)[:, None]
        exact = told(90, 1e6)
        right = exact.sums / exact.counts[:, None]
        arrays = denoised(sums, SPACE)
        shares = arrays["class_shares"]
        kept = shares > 0.05
        drawn = (arrays["class_sums"][kept] / shares[kept, None] - SPACE.centre) @ SPACE.directions
        noisy, of_drawn = means[kept] - right[kept], drawn / SPACE.radius - right[kept]
        errors.append([np.square(noisy).sum(), np.square(of_drawn).sum()])
    before, after = np.median(errors, axis=0)
    assert after < 0.5 * before


def test_a_class_without_images_has_next_to_no_share():
    rows, labels = example_images(300, 7, CAPTIONS)
    kept = labels != 2
    sums = private_sums(
        rows[kept], labels[kept], np.arange(kept.sum()), CLASSES, SPACE, Terms(2.0, 1e-5),
        np.random.default_rng(1),
    )  # fmt: skip
    assert denoised(sums, SPACE)["class_shares"][2] < 0.06
    assert denoised(sums, SPACE, minimum_group_size=20)["class_shares"][2] == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=(n := length_of(CLASSES, DIRECTIONS)), max_size=n),
    st.floats(0, 1e4),
)
def test_whatever_the_noise_makes_of_it_statistics_can_be_used(vector, deviation):
    arrays = denoised(sums_of(np.array(vector), CLASSES, DIRECTIONS, deviation), SPACE)
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert arrays["class_shares"].min() >= 0
    assert arrays["class_shares"].sum() == pytest.approx(1, abs=1e-5)
    assert np.linalg.eigvalsh(arrays["scatter"].astype(np.float64)).min() > -1e-4 * arrays["spread"][0]


def test_what_is_public_makes_statistics_of_its_own():
    arrays = public_statistics(SPACE)
    assert arrived(arrays)
    means = arrays["class_sums"] / arrays["class_shares"][:, None]
    assert means == pytest.approx(SPACE.embeddings_of(SPACE.class_means), abs=1e-5)
    assert mixing_factors(arrays, SPACE) == pytest.approx((ZERO_SHOT, DISCRIMINANT), rel=1e-3)


def test_narrow_classes_count_for_more_than_zero_shot():
    arrays = denoised(told(3000, 1e6), SPACE)
    narrow = {"scatter": SPACE.scatter_of(SPACE.scatter / 3).astype(np.float32)}
    zero_shot, discriminant = mixing_factors(narrow, SPACE)
    assert zero_shot == pytest.approx(ZERO_SHOT / 3, rel=1e-3)
    assert discriminant == pytest.approx(DISCRIMINANT * 3, rel=1e-3)
    assert all(np.isfinite(mixing_factors(arrays, SPACE)))
