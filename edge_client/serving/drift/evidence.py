"""How strongly batches speak against "as in training", as a gambler's money: valid whenever it is looked at.

Who bets against a true hypothesis at fair odds has, at any time, more than X times the first stake with a
probability of at most 1 / X (Ville 1939). So money is evidence that may be looked at after every batch,
without a correction for repeated looks: Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 86 (2024), and Shekhar and Ramdas, "Nonparametric two-sample testing by
betting", IEEE Transactions on Information Theory 70 (2024), for a direction that is learned from the batches
before.

The hypothesis: whatever came before, a batch's mean is at most `least`. With z that mean, cut off below at
-`least` / 2, a bet b in (0, 1) multiplies the money by 1 + b (z - least) / (1.5 least), which is never
negative, and at most 1 on average where z is at most `least` on average. (Cutting off raises the average of
noisy batches; one whose mean is 0 may have a deviation of 1.2 `least` before that matters.) Nothing is
assumed of how the images within a batch depend on one another. A fixed part of the money is laid on each of
several bets.

What is lost in quiet months would be missing when something changes. So a twelfth of the money is laid down
at the beginning of each month, and played on until the year is over.
"""

import math
from collections.abc import Sequence

BETS = (0.95, 0.5, 0.25, 0.12)
"""Parts of the money at stake: the largest is best against large differences."""

STAKES = 12
"""How many stakes are in play at most, one for each month of a year."""

_FLOOR = 0.5


def bet(log_money: Sequence[float], mean: float, least: float) -> list[float]:
    """Return the logarithms of the money on each of `BETS` after a batch; an empty sequence is the start."""
    won = (max(mean, -_FLOOR * least) - least) / ((1 + _FLOOR) * least)
    return [
        before + math.log1p(part * won)
        for before, part in zip(log_money or [0.0] * len(BETS), BETS, strict=True)
    ]


def evidence(log_money: Sequence[float]) -> float:
    """Return the logarithm of the money on all bets, over that of the start: 0 before the first batch."""
    return _log_sum(log_money) - math.log(len(log_money)) if log_money else 0.0


def together(stakes: Sequence[Sequence[float]]) -> float:
    """Return the logarithm of all money of a year in which each month one of `STAKES` stakes is laid."""
    idle = STAKES - len(stakes)
    return _log_sum([*map(evidence, stakes), *([0.0] * idle)]) - math.log(STAKES)


def _log_sum(values: Sequence[float]) -> float:
    most = max(values)
    return most + math.log(sum(math.exp(value - most) for value in values))
