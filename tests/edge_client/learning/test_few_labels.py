"""The correction by a site's own labels: the optimum that it claims to be, and when it is not made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.scanner_offset import softmax_doubles
from fedmedclip.edge_client.learning.few_labels import RIDGE, WIDTH, Candidate, corrected

EVEN = np.full(3, 1 / 3)


def points_of(labels, noise=0.15, seed=0):
    draw = np.random.default_rng(seed)
    rows = np.eye(3)[labels] + noise * draw.normal(size=(len(labels), 3))
    return rows - rows.mean(axis=0)


def candidates(**logits):
    return {name: Candidate(rows, EVEN) for name, rows in logits.items()}


def example(count=60):
    labels = np.arange(count) % 3
    return labels, points_of(labels), np.arange(count)


def test_the_factors_are_where_the_penalised_likelihood_is_stationary():
    """K (p - y) + ridge K a = 0, and no step to any side is better."""
    labels, points, groups = example()
    logits = np.random.default_rng(1).normal(size=(60, 3))
    found = corrected(candidates(head=logits), points, labels, groups, 0).factors
    kernel = np.exp(-WIDTH * ((points[:, None] - points[None]) ** 2).sum(axis=2))
    targets = np.eye(3)[labels]
    start = logits + np.log((targets.sum(axis=0) + 1) / 63) - np.log(EVEN)
    slope = kernel @ (softmax_doubles(start + kernel @ found) - targets + RIDGE * found)
    assert np.abs(slope).max() < 1e-2

    def objective(factors):
        told = softmax_doubles(start + kernel @ factors)
        return -np.log(told[np.arange(60), labels]).sum() + RIDGE / 2 * np.sum(factors * (kernel @ factors))

    draw = np.random.default_rng(2)
    assert all(objective(found) < objective(found + 0.05 * draw.normal(size=found.shape)) for _ in range(20))


def test_labels_that_a_kernel_cannot_foretell_correct_nothing():
    labels, _, groups = example()
    random = np.random.default_rng(0).normal(size=(60, 3))
    right = 6 * np.eye(3)[labels]
    assert corrected(candidates(head=right), random, labels, groups, 0).factors is None


def test_another_head_needs_more_than_a_handful_of_labels():
    labels, points, groups = example(90)
    points = np.random.default_rng(0).normal(size=points.shape)
    both = {"usual": np.zeros((90, 3)), "better": 6 * np.eye(3)[labels]}
    few = {name: rows[:3] for name, rows in both.items()}
    assert corrected(candidates(**few), points[:3], labels[:3], groups[:3], 0).candidate == "usual"
    assert corrected(candidates(**both), points, labels, groups, 0).candidate == "better"
    # Three patients are three, however many images they have.
    patients = np.arange(90) // 30
    assert corrected(candidates(**both), points, labels, patients, 0).candidate == "usual"


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_few_labels_of_few_classes_and_copies_are_finite(count, classes, seed):
    draw = np.random.default_rng(seed)
    points, labels = draw.normal(size=(count, 2)), draw.integers(0, classes, count)
    points[: count // 2] = points[0]
    head = Candidate(draw.normal(size=(count, classes)), np.full(classes, 1 / classes))
    found = corrected({"head": head}, points, labels, draw.integers(0, 3, count), seed)
    assert found.candidate == "head"
    assert found.factors is None or np.isfinite(found.factors).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_labels_give_the_same_correction(seed):
    labels, points, groups = example()
    logits = candidates(head=np.zeros((60, 3)))
    first, second = (corrected(logits, points, labels, names, seed) for names in (groups, groups * 3 + 1))
    np.testing.assert_array_equal(first.factors, second.factors)
