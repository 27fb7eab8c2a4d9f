"""Running means: in any order, in any parts, as exact after many as after few."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.serving.drift.running_mean import RunningMean

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)


def mean_of(values: list[float]) -> RunningMean:
    found = RunningMean()
    for value in values:
        found.add([value, -value])
    return found


@settings(max_examples=30)
@given(values=VALUES, data=st.data())
def test_any_order_and_any_parts_give_the_mean(values, data):
    exact = float(sum(map(Fraction, values)) / len(values))
    shuffled = data.draw(st.permutations(values))
    cut = data.draw(st.integers(0, len(values)))
    merged = mean_of(shuffled[:cut])
    merged.merge(mean_of(shuffled[cut:]))
    for found in (mean_of(values), mean_of(shuffled), merged):
        assert found.count == len(values)
        assert found.mean == pytest.approx([exact, -exact], abs=1e-9 * max(map(abs, values)), rel=1e-9)


@settings(max_examples=30)
@given(values=VALUES)
def test_nothing_is_added_by_nothing(values):
    found, empty = mean_of(values), RunningMean()
    before = list(found.mean)
    found.merge(empty)
    empty.merge(found)
    assert found.mean == empty.mean == before


def test_small_differences_are_not_lost_on_a_large_offset():
    offset, steps = 1e8, np.linspace(0, 1, 20_001)
    found = RunningMean()
    for start in range(0, len(steps), 100):
        found.merge(mean_of((offset + steps[start : start + 100]).tolist()))
    assert found.mean[0] - offset == pytest.approx(0.5, abs=1e-6)
