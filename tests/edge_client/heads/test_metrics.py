import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.edge_client.heads.metrics import expected_calibration_error, measure
from fedmedclip.protocol.errors import InvalidInputError

NAMES = ["glioma", "none", "pituitary"]


def certain(predicted, classes=3):
    return np.eye(classes, dtype=np.float32)[predicted]


def test_hand_counted_example():
    labels = np.array([0, 0, 0, 0, 1, 1])
    found = measure(certain([0, 0, 0, 1, 1, 2]), labels, NAMES)
    assert found.images == 6
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found.macro_f1 == pytest.approx((6 / 7 + 1 / 2 + 0) / 3)
    assert found.confusion == ((3, 1, 0), (0, 1, 1), (0, 0, 0))
    assert found.classes["none"].precision == pytest.approx(1 / 2)
    assert found.classes["glioma"].recall == pytest.approx(3 / 4)
    assert found.classes["pituitary"].support == 0
    assert found.expected_calibration_error == pytest.approx(2 / 6)


def test_it_is_json():
    found = measure(certain([0, 1]), np.array([0, 1]), NAMES).as_dict()
    assert json.loads(json.dumps(found))["classes"]["none"] == {"precision": 1.0, "recall": 1.0, "support": 1}


def test_calibration_error_by_hand():
    """Two bins hold images: confidences 0.62 and 0.64 (one right), and 0.95 (right)."""
    probabilities = np.array([[0.62, 0.38], [0.36, 0.64], [0.95, 0.05]], np.float32)
    found = expected_calibration_error(probabilities, np.array([0, 0, 0]))
    assert found == pytest.approx((2 / 3) * abs(0.63 - 0.5) + (1 / 3) * 0.05, abs=1e-6)


def test_bins_include_their_upper_edge():
    probabilities = np.array([[0.5, 0.5], [0.51, 0.49]], np.float32)
    apart = expected_calibration_error(probabilities, np.array([0, 1]), bins=2)
    assert apart == pytest.approx((0.5 + 0.51) / 2, abs=1e-6)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.floats(0.01, 1), min_size=3, max_size=3)), min_size=1)
)
def test_figures_stay_in_range(rows):
    probabilities = np.array([weights for _, weights in rows], np.float32)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = measure(probabilities, np.array([label for label, _ in rows]), NAMES)
    for value in (found.accuracy, found.balanced_accuracy, found.macro_f1, found.expected_calibration_error):
        assert 0 <= value <= 1
    assert sum(map(sum, found.confusion)) == len(rows)


def test_no_images_is_an_error():
    with pytest.raises(InvalidInputError, match="no labelled images"):
        measure(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), NAMES)


def test_labels_must_fit_the_class_names():
    with pytest.raises(InvalidInputError, match="do not fit"):
        measure(certain([0, 1]), np.array([0, 3]), NAMES)
