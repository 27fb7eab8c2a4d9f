"""FedAvg with momentum at the aggregator."""

from fedmedclip.aggregator.rules.rule import Aggregate, Floats, Rule
from fedmedclip.aggregator.rules.server_optimisers import optimiser
from fedmedclip.protocol.named_options import NameWithOptions


def fedavgm(name: NameWithOptions) -> Aggregate:
    """Step by rate * velocity; velocity = momentum * velocity + mean.

    Hsu et al. 2019, "Measuring the effects of non-identical data distribution". `momentum` is 0.9, `rate`
    0.1: together as far as the mean alone where it stays the same from round to round.

    Bears no hostile site. Memory: the mean's, and one head in float32 is kept. Where all are honest and have
    different data it evens out rounds in which others take part.
    """
    momentum = name.take_number("momentum", 0.9, 0.0, 0.999)
    rate = name.take_number("rate", 0.1, 1e-6, 100.0)
    assert momentum is not None
    assert rate is not None

    def step(mean: Floats, kept: dict[str, Floats]) -> Floats:
        kept["velocity"] = momentum * kept["velocity"] + mean
        return rate * kept["velocity"]

    return optimiser({"velocity": 0.0}, step)


RULE = Rule(fedavgm)
