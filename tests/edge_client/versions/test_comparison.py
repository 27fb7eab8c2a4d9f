"""What paired tests say of two versions: seldom a false alarm, and a clear loss is found."""

import numpy as np
import pytest

from benchmarks.versions.what_tests_see import NAMES, share_called_worse
from fedmedclip.edge_client.versions import comparison as module
from fedmedclip.edge_client.versions.comparison import paired_tests


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("fedmedclip.edge_client.heads.paired_tests.RESAMPLES", 500)


def test_a_version_without_difference_is_called_worse_about_as_seldom_as_the_level_says():
    # Holm's correction, and what cannot be told apart, leave it below the level.
    assert 0 < share_called_worse(120, 0.8, 0.8, 400) <= 0.06


def test_a_clearly_worse_version_is_called_worse_and_of_20_images_only_a_ruin_is():
    assert share_called_worse(120, 0.9, 0.4, 40) >= 0.95
    assert share_called_worse(20, 0.9, 0.75, 40) <= 0.2
    assert share_called_worse(20, 0.99, 0.01, 40) >= 0.7


def test_one_class_alone_that_is_lost_is_named():
    labels = np.repeat(np.arange(4), 15)
    before = np.eye(4, dtype=np.float32)[labels] * 0.9 + 0.025
    after = before.copy()
    after[labels == 2] = np.roll(after[labels == 2], 1, axis=1)
    tests = {test.of: test for test in paired_tests(after, before, labels, np.arange(60), NAMES)}
    assert tests["sensitivity for c"].p_corrected < 0.01
    assert (tests["sensitivity for c"].worse, tests["sensitivity for c"].groups) == (15, 15)
    assert tests["sensitivity for a"].p_corrected == 1


def test_worse_probabilities_of_the_same_answers_are_found():
    labels = np.repeat(np.arange(4), 15)
    before = np.eye(4, dtype=np.float32)[labels] * 0.9 + 0.025
    after = np.eye(4, dtype=np.float32)[labels] * 0.2 + 0.2
    tests = {test.of: test for test in paired_tests(after, before, labels, np.arange(60), NAMES)}
    assert tests["Brier score"].p_corrected < 0.05
    assert tests["accuracy"].p == 1


def test_images_of_one_patient_count_once():
    labels = np.zeros(40, np.int64)
    before = np.tile(np.float32([0.9, 0.1, 0, 0]), (40, 1))
    after = before[:, ::-1].copy()
    alone = paired_tests(after, before, labels, np.arange(40), NAMES)
    together = paired_tests(after, before, labels, np.arange(40) // 20, NAMES)
    assert max(test.p_corrected for test in alone) < 0.01
    assert min(test.p_corrected for test in together) > 0.2


def test_fewer_recent_images_than_can_tell_are_left_alone():
    recent = np.zeros((module.LEAST_RECENT_IMAGES - 1, 24), np.float32)
    assert module.shadow_of(None, None, None, recent) is None
