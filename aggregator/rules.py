"""Aggregation rules: how the updates of a round become one delta. `[federation] rule` names one."""

import math
from collections.abc import Callable, Iterable

import numpy as np

from fedmedclip.protocol.errors import AggregationError, FedMedClipError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.plugins import known_names, load_from_outside

GROUP, _KIND = "fedmedclip.aggregation_rules", "aggregation rule"

_WHAT_TO_DO = "the round's updates are kept: mend it or name another in `rule`, and start again"

Updates = Iterable[tuple[float, NamedArrays]]
"""Weight and delta of each update, sorted by site. They can be gone through once."""
Rule = Callable[[Updates, HeadSpecification], NamedArrays]
"""Updates and the head's specification to one delta in float32; equal updates always give equal bits."""


def rule_named(name: str) -> Rule:
    """Return a rule, built in or brought along by another distribution.

    It raises AggregationError, with its name, when it fails or its result is no delta. Raises
    InvalidInputError for an unknown rule, and when what another distribution brings under the name cannot be
    used.
    """
    found: Rule | None = _BUILT_IN.get(name) or load_from_outside(GROUP, _KIND, name, callable)
    if found is None:
        raise InvalidInputError(unknown_name(_KIND, name, known_names(GROUP, _KIND, _BUILT_IN)))
    rule = found

    def checked(updates: Updates, specification: HeadSpecification) -> NamedArrays:
        try:
            delta = rule(updates, specification)
        except FedMedClipError:
            raise
        except Exception as error:
            # Whatever another distribution's code may raise: the round stays as it is.
            if name in _BUILT_IN:
                raise
            said = f"{type(error).__name__}: {error}"
            raise AggregationError(f"aggregation rule {name!r} failed ({said}); {_WHAT_TO_DO}") from error
        try:
            specification.check(delta)
        except HeadError as error:
            raise AggregationError(
                f"aggregation rule {name!r} gave no delta: {error}; {_WHAT_TO_DO}"
            ) from error
        return delta

    return checked


def weighted_mean(updates: Updates, specification: HeadSpecification) -> NamedArrays:
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


def staleness_weight(rounds_late: int) -> float:
    """Return by what a late update is multiplied: 1 / sqrt(1 + rounds_late).

    Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation", section 5; the weights of
    the mean stay as they are, so that a round of late updates alone makes a smaller step.
    """
    return 1.0 / math.sqrt(1.0 + rounds_late)


_BUILT_IN: dict[str, Rule] = {"weighted_mean": weighted_mean}
