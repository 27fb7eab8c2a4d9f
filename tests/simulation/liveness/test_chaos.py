"""A few kills of real processes at random moments."""

import pytest

from benchmarks.liveness.chaos import Outcome, play


@pytest.mark.slow
def test_a_few_kills_change_no_bit_of_any_head(tmp_path, mosquitto_installed):
    outcome = Outcome()
    play(5, 1, tmp_path, outcome)
    assert outcome.kills == 5
    assert outcome.identical
