"""A few kills of real processes at random moments."""

import pytest

from benchmarks.liveness.chaos import play


@pytest.mark.slow
def test_a_few_kills_change_no_bit_of_any_head(tmp_path, mosquitto_installed):
    outcome = play(3, 1, tmp_path)
    assert outcome.kills == 3
    assert outcome.identical
