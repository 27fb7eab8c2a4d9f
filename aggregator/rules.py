"""Aggregation rules: how the updates of a round become one mean delta."""

from collections.abc import Iterable

import numpy as np

from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays


def weighted_mean(
    updates: Iterable[tuple[float, NamedArrays]], specification: HeadSpecification
) -> NamedArrays:
    """Return sum(weight * delta) / sum(weight), accumulated in float64 in the order given.

    One update is in memory at a time. With the number of training samples as weight this is FedAvg
    (McMahan et al. 2017, algorithm 1); with weight 1 it is the plain mean. The order fixes the rounding, so
    the caller gives updates sorted by site. Raises ValueError when there is no update.
    """
    total_weight = 0.0
    total = {tensor.name: np.zeros(tensor.shape, dtype=np.float64) for tensor in specification.tensors}
    for weight, delta in updates:
        total_weight += weight
        for name, array in total.items():
            array += weight * delta[name].astype(np.float64)
    if total_weight <= 0.0:
        raise ValueError("a round cannot be aggregated without updates")
    return {name: (array / total_weight).astype(np.float32) for name, array in total.items()}
