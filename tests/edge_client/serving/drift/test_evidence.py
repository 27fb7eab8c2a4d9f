"""Money is evidence: no fair game is won on average, and a clear difference is found soon."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.serving.drift.evidence import BETS, STAKES, bet, evidence, together
from fedmedclip.edge_client.serving.drift.watch import ALARM


@settings(max_examples=30)
@given(least=st.floats(0.05, 2), low=st.floats(-0.5, 1), high=st.floats(1, 50))
def test_no_bet_wins_on_average_while_the_mean_is_the_least_that_counts(least, low, high):
    """Two values with the mean `least`: the hardest case that is no drift yet."""
    below, above = low * least, high * least
    chance = 0.5 if above == below else (least - below) / (above - below)
    for won, lost in zip(bet([], above, least), bet([], below, least), strict=True):
        assert chance * math.exp(won) + (1 - chance) * math.exp(lost) == pytest.approx(1, abs=1e-9)


@settings(max_examples=30)
@given(means=st.lists(st.floats(-1e6, 1e6), max_size=50), least=st.floats(0.05, 2))
def test_money_is_never_all_lost(means, least):
    money: list[float] = []
    for mean in means:
        money = bet(money, mean, least)
    assert math.isfinite(evidence(money))
    assert len(money) in (0, len(BETS))


def test_a_stake_that_is_not_yet_laid_is_kept():
    lost, won = [-1e9] * len(BETS), [5.0] * len(BETS)
    assert together([]) == pytest.approx(0)
    assert together([lost]) == pytest.approx(math.log(1 - 1 / STAKES))
    assert together([lost] * (STAKES - 1) + [won]) == pytest.approx(5 - math.log(STAKES))


def test_days_without_drift_hardly_ever_alarm_and_days_with_do():
    generator = np.random.default_rng(1)

    def alarmed(mean: float, deviation: float) -> bool:
        money: list[float] = []
        for _ in range(22):
            money = bet(money, mean + deviation * generator.standard_normal(), 0.4)
            if together([money]) >= ALARM:
                return True
        return False

    assert sum(alarmed(0.2, 0.4) for _ in range(500)) == 0
    assert sum(alarmed(1.5, 0.4) for _ in range(50)) == 50
