"""Figures of prediction sets and withheld answers, by hand."""

import numpy as np
import pytest

from fedmedclip.edge_client.heads.selective import area_under_risk, measure_selection
from fedmedclip.protocol.errors import InvalidInputError

NAMES = ("a", "b", "c")
ROWS = np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.1, 0.7, 0.2]], np.float32)
SETS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 1, 1]], bool)
UNLIKE = np.array([False, False, False, True])


def test_figures_by_hand():
    found = measure_selection(ROWS, np.array([0, 1, 0, 1]), SETS, UNLIKE, 0.9, NAMES)
    assert (found.images, found.level, found.errors) == (4, 0.9, 2)
    assert found.coverage == 0.75
    assert found.coverage_by_class == {"a": 0.5, "b": 1.0, "c": None}
    assert found.mean_set_size == 7 / 4
    assert found.answered == 0.75
    assert (found.coverage_of_answered, found.mean_set_size_of_answered) == (2 / 3, 4 / 3)
    assert found.accuracy_of_answered == pytest.approx(1 / 3)
    # Of two errors the second image has two classes; of two right answers the last has none.
    assert (found.errors_caught, found.right_questioned) == (0.5, 0.5)


def test_area_under_risk_by_hand():
    assert area_under_risk(
        np.array([0.9, 0.8, 0.7, 0.6]), np.array([False, True, False, True])
    ) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    # Of equals the order does not count.
    for wrong in ([True, False], [False, True]):
        assert area_under_risk(np.array([0.5, 0.5]), np.array(wrong)) == 0.5


def test_nothing_is_answered_and_nothing_is_there():
    found = measure_selection(ROWS, np.array([0, 0, 1, 1]), SETS | True, UNLIKE | True, 0.9, NAMES)
    assert (found.answered, found.coverage, found.coverage_of_answered, found.errors_caught) == (
        0,
        1,
        None,
        None,
    )
    with pytest.raises(InvalidInputError, match="no labelled images"):
        measure_selection(ROWS[:0], np.zeros(0, np.int64), SETS[:0], UNLIKE[:0], 0.9, NAMES)
