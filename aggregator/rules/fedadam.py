"""Adam at the aggregator, and Yogi, which differs in how the second moment falls."""

from collections.abc import Callable

import numpy as np

from fedmedclip.aggregator.rules.rule import Aggregate, Floats, Rule
from fedmedclip.aggregator.rules.server_optimisers import optimiser
from fedmedclip.protocol.named_options import NameWithOptions

SecondMoment = Callable[[Floats, Floats, float], Floats]
"""Second moment, squared mean and beta2 to the next second moment."""


def adaptive(name: NameWithOptions, second_moment: SecondMoment) -> Aggregate:
    """Step by rate * first moment / (sqrt(second moment) + epsilon): Reddi et al. 2021, algorithm 2.

    Options: `beta1` 0.9, `beta2` 0.99, `epsilon` 0.001 (tau in the paper, whose square the second moment
    starts from), `rate` 0.003. There is no correction of the first rounds' bias, as in the paper.
    """
    beta1 = name.take_number("beta1", 0.9, 0.0, 0.9999)
    beta2 = name.take_number("beta2", 0.99, 0.0, 0.9999)
    epsilon = name.take_number("epsilon", 1e-3, 1e-9, 1.0)
    rate = name.take_number("rate", 3e-3, 1e-6, 100.0)
    assert beta1 is not None
    assert beta2 is not None
    assert epsilon is not None
    assert rate is not None

    def step(mean: Floats, kept: dict[str, Floats]) -> Floats:
        kept["first"] = beta1 * kept["first"] + (1.0 - beta1) * mean
        kept["second"] = second_moment(kept["second"], np.square(mean), beta2)
        return rate * kept["first"] / (np.sqrt(kept["second"]) + epsilon)

    return optimiser({"first": 0.0, "second": epsilon * epsilon}, step)


def fedadam(name: NameWithOptions) -> Aggregate:
    """FedAdam (Reddi et al. 2021): options as for `adaptive`.

    Bears no hostile site, though a single round moves no value by more than about the rate. Memory: the
    mean's, and two heads in float32 are kept. Where all are honest and have different data it helps arrays
    whose mean is small but steady; the rate must fit the method.
    """
    return adaptive(name, lambda second, square, beta2: beta2 * second + (1.0 - beta2) * square)


RULE = Rule(fedadam)
