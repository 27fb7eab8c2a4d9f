"""Prediction sets: the quantile by hand, and the level on draws of patients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.conformal import fit_thresholds, group_quantile, prediction_sets, scores


def probabilities_of(generator, count, classes=4, sharpness=2.0):
    logits = sharpness * generator.normal(size=(count, classes))
    raised = np.exp(logits)
    return (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(generator, probabilities):
    """Return labels that the probabilities are right about."""
    return (
        (probabilities.cumsum(axis=1) < generator.uniform(size=(len(probabilities), 1)))
        .sum(axis=1)
        .clip(0, 3)
    )


@pytest.mark.parametrize(
    ("count", "level", "rank"), [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.95, 95)]
)
def test_where_each_image_stands_alone_it_is_the_usual_quantile(count, level, rank):
    values = np.random.default_rng(0).permutation(count) / 128
    assert group_quantile(values, np.arange(count), level) == pytest.approx(
        np.sort(values)[rank - 1], abs=1e-6
    )


@pytest.mark.parametrize(("count", "level"), [(0, 0.5), (8, 0.9), (18, 0.95), (998, 0.999)])
def test_too_few_groups_have_none(count, level):
    assert group_quantile(np.zeros(3 * count), np.arange(3 * count) // 3, level) is None


def test_a_patient_of_many_images_weighs_as_one():
    values = np.concatenate([np.arange(9) / 16, np.full(1000, 0.99)])
    groups = np.concatenate([np.arange(9), np.full(1000, 9)])
    assert group_quantile(values, groups, 0.8) == pytest.approx(8 / 16)
    assert group_quantile(values, np.arange(len(values)), 0.8) == pytest.approx(0.99)


def test_scores_by_hand():
    row = np.array([[0.5, 0.125, 0.25, 0.125]], np.float32)
    np.testing.assert_allclose(scores("lac", row), [[0.5, 0.875, 0.75, 0.875]])
    np.testing.assert_allclose(scores("aps", row), [[0.5, 0.875, 0.75, 1.0]])


@pytest.mark.parametrize("kind", ["lac", "aps"])
def test_a_set_is_never_empty_and_without_a_threshold_everything(kind):
    rows = probabilities_of(np.random.default_rng(1), 50)
    smallest = prediction_sets(kind, (0.0,) * 4, rows)
    np.testing.assert_array_equal(smallest.sum(axis=1), 1)
    np.testing.assert_array_equal(smallest.argmax(axis=1), rows.argmax(axis=1))
    assert prediction_sets(kind, (None,) * 4, rows).all()
    assert prediction_sets(kind, (0.0, None, 0.0, 0.0), rows)[:, 1].all()


@pytest.mark.parametrize("kind", ["lac", "aps"])
@pytest.mark.parametrize("class_conditional", [False, True])
def test_new_patients_are_covered_as_often_as_was_said(kind, class_conditional):
    """Patients differ much: one has up to 20 images, whose probabilities are wrong in the same way."""
    generator = np.random.default_rng(2)
    covered = []
    for _ in range(300):
        sizes = generator.integers(1, 21, size=41)
        groups = np.repeat(np.arange(41), sizes)
        rows = probabilities_of(generator, len(groups))
        labels = drawn(generator, rows)
        odd = generator.uniform(size=41)[groups] < 0.15
        labels[odd] = (labels[odd] + 1) % 4
        old = groups < 40
        found = fit_thresholds(kind, rows[old], labels[old], groups[old], 0.8, class_conditional)
        new = ~old
        sets = prediction_sets(kind, found, rows[new])
        covered.append(sets[np.arange(new.sum()), labels[new]].mean())
    # Three standard errors of 300 draws.
    assert np.mean(covered) > 0.8 - 3 * np.std(covered) / np.sqrt(300)
    assert np.mean(covered) < 0.97


@settings(max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(1, 6),
    st.sampled_from(["lac", "aps"]),
    st.booleans(),
    st.floats(0.5, 0.999),
)
def test_of_any_images_the_sets_hold_the_share(count, per_group, kind, class_conditional, level):
    generator = np.random.default_rng(count)
    rows = probabilities_of(generator, count, sharpness=8.0)
    labels, groups = generator.integers(0, 4, count), np.arange(count) // per_group
    found = fit_thresholds(kind, rows, labels, groups, level, class_conditional)
    held = prediction_sets(kind, found, rows)[np.arange(count), labels]
    by_group = [held[groups == group].mean() for group in np.unique(groups)]
    if not class_conditional:
        assert np.mean(by_group) >= level - 1e-9
    assert all(limit is None or 0 <= limit <= 1.00001 for limit in found)
