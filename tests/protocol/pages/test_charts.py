"""Charts say what is in them, with round numbers beside, and never fail at odd values."""

import math
import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.pages.charts import Lane, Series, _ticks, bar_chart, line_chart, time_line

numbers = st.floats(-1e9, 1e9, allow_nan=False)


@given(numbers, st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_inside(low, size):
    high = low + size
    ticks = _ticks(low, high)
    if not high > low:
        return
    room = 1e-6 * (abs(low) + size)
    assert all(low - room <= tick <= high + room for tick in ticks)
    assert len(ticks) <= 7
    steps = {f"{after - before:.0e}"[0] for before, after in pairwise(ticks)}
    if abs(low) < 1e3 * size:
        assert steps <= {"1", "2", "5"}


@given(st.lists(st.tuples(numbers, st.none() | numbers), min_size=1, max_size=20))
def test_any_values_make_a_chart(points):
    xs, ys = [x for x, _ in points], [y for _, y in points]
    drawn = line_chart("T", "D", [Series("a", xs, ys), Series("b", xs, ys, ys, ys)], "x")
    assert "nan" not in drawn
    bars = bar_chart("T", "D", [(float(k), abs(y or 0.0)) for k, y in enumerate(ys)], "x", 3.0)
    assert all(math.isfinite(float(height)) for height in re.findall(r'height="([0-9.e+-]+)"', bars))


def test_a_time_line_says_how_long_ago():
    drawn = time_line("T", "D", [Lane("a", [(0.0, 900.0)], [(450.0, "●", "delivered <x>")])], 0.0, 900.0)
    assert "5 min before" in drawn
    assert "<title>delivered &lt;x&gt;</title>" in drawn
    assert re.search(r'role="img"[^>]*aria-label="T. D"', drawn)
