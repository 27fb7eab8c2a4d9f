"""How strongly batches speak against "as in training", as a gambler's money: valid whenever it is looked at.

Who bets against a true hypothesis at fair odds has, at any time, more than X times the first stake with a
probability of at most 1 / X (Ville 1939). So money is evidence that may be looked at after every batch,
without a correction for repeated looks: Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", JRSS B 86 (2024), and Shekhar and Ramdas, "Nonparametric two-sample testing by
betting", IEEE Transactions on Information Theory 70 (2024), for a direction that is learned from the batches
before.

The hypothesis: whatever came before, a batch's mean is at most `least`. With z that mean, cut off below at
-`least`, a bet b in (0, 1) multiplies the money by 1 + b (z - least) / (2 least), which is never negative and
under the hypothesis at most 1 on average. Nothing is assumed of how the images within a batch depend on one
another. Money is laid on several bets at once, a fixed part on each ("mixture", section 4 there).
"""

import math
from collections.abc import Sequence

BETS = (0.95, 0.5, 0.25, 0.12)
"""Parts of the money at stake: the largest is best against large differences."""


def bet(log_money: Sequence[float], mean: float, least: float) -> list[float]:
    """Return the logarithms of the money on each of `BETS` after a batch; an empty sequence is the start."""
    won = (max(mean, -least) - least) / (2 * least)
    return [
        before + math.log1p(part * won)
        for before, part in zip(log_money or [0.0] * len(BETS), BETS, strict=True)
    ]


def evidence(log_money: Sequence[float]) -> float:
    """Return the logarithm of all of the money, over that of the start: 0 before the first batch."""
    if not log_money:
        return 0.0
    most = max(log_money)
    return most + math.log(sum(math.exp(value - most) for value in log_money) / len(log_money))
