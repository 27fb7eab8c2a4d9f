"""What an update counts for that comes late."""

import math


def staleness_weight(rounds_late: int) -> float:
    """Return by what a late update is multiplied: 1 / sqrt(1 + rounds_late).

    Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation", section 5; the weights of
    the mean stay as they are, so that a round of late updates alone makes a smaller step.
    """
    return 1.0 / math.sqrt(1.0 + rounds_late)
