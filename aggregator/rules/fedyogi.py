"""Yogi at the aggregator."""

import numpy as np

from fedmedclip.aggregator.rules.fedadam import adaptive
from fedmedclip.aggregator.rules.rule import Aggregate, Floats, Rule
from fedmedclip.protocol.named_options import NameWithOptions


def _second_moment(second: Floats, square: Floats, beta2: float) -> Floats:
    moved: Floats = second - (1.0 - beta2) * square * np.sign(second - square)
    return moved


def fedyogi(name: NameWithOptions) -> Aggregate:
    """FedYogi (Reddi et al. 2021): FedAdam whose second moment falls slowly; options as for `adaptive`.

    Bears no hostile site. Memory: the mean's, and two heads in float32 are kept. Where all are honest
    and have different data it is steadier than FedAdam when updates become small suddenly.
    """
    return adaptive(name, _second_moment)


RULE = Rule(fedyogi)
