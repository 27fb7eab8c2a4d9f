"""Rules by name, with their options: built in, or brought along by another distribution."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedmedclip.aggregator.rules import (
    bulyan,
    centred_clipping,
    clipped_mean,
    coordinate_median,
    fedadam,
    fedavgm,
    fedyogi,
    geometric_median,
    krum,
    trimmed_mean,
    weighted_mean,
)
from fedmedclip.aggregator.rules.rule import Aggregate, Aggregated, Rule, RuleState, Updates
from fedmedclip.protocol.errors import AggregationError, FedMedClipError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.methods import method_named
from fedmedclip.protocol.named_options import NameWithOptions, taken_apart
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.plugins import known_names, load_from_outside

GROUP, _KIND = "fedmedclip.aggregation_rules", "aggregation rule"
_EXAMPLE = "trimmed_mean:share=0.2"
_WHAT_TO_DO = "the round's updates are kept: mend it or name another in `rule`, and start again"

DEFAULT = "clipped_mean:factor=1,weight=2"
"""The rule of a federation that names none."""
DEFAULT_OF_STATISTICS = "weighted_mean:norm=3"
"""The same for a method that sends statistics of unit vectors, whose norm is 2 at most."""

BUILT_IN: dict[str, Rule] = {
    "bulyan": bulyan.RULE,
    "centred_clipping": centred_clipping.RULE,
    "clipped_mean": clipped_mean.RULE,
    "coordinate_median": coordinate_median.RULE,
    "fedadam": fedadam.RULE,
    "fedavgm": fedavgm.RULE,
    "fedyogi": fedyogi.RULE,
    "geometric_median": geometric_median.RULE,
    "krum": krum.KRUM,
    "multi_krum": krum.MULTI_KRUM,
    "trimmed_mean": trimmed_mean.RULE,
    "weighted_mean": weighted_mean.RULE,
}


class RuleName(NameWithOptions):
    """A rule's name taken apart."""

    kind: ClassVar[str] = _KIND


@dataclass(frozen=True)
class NamedRule:
    """A rule with its options, checked: it raises AggregationError where the round cannot be aggregated."""

    name: str
    suits_statistics: bool
    _aggregate: Aggregate
    _built_in: bool

    def __call__(
        self, updates: Updates, specification: HeadSpecification, state: RuleState | None = None
    ) -> Aggregated:
        """Return what becomes of a round's updates, in whatever order they come: sites are sorted first.

        Raises AggregationError, with the rule's name, when it fails or its result is no delta.
        """
        ordered = sorted(updates, key=lambda update: update.site)
        try:
            found = self._aggregate(ordered, specification, state or {})
        except FedMedClipError:
            raise
        except Exception as error:
            # Whatever another distribution's code may raise: the round stays as it is.
            if self._built_in:
                raise
            said = f"{type(error).__name__}: {error}"
            raise AggregationError(
                f"aggregation rule {self.name!r} failed ({said}); {_WHAT_TO_DO}"
            ) from error
        try:
            specification.check(found.delta)
        except HeadError as error:
            raise AggregationError(
                f"aggregation rule {self.name!r} gave no delta: {error}; {_WHAT_TO_DO}"
            ) from error
        if not _can_be_kept(found.state):
            raise AggregationError(
                f"aggregation rule {self.name!r} keeps what cannot be kept: its state must be finite "
                f"float32 or float64 arrays by name; {_WHAT_TO_DO}"
            )
        return found


def _can_be_kept(state: object) -> bool:
    return isinstance(state, dict) and all(
        isinstance(name, str)
        and isinstance(array, np.ndarray)
        and array.dtype in (np.float32, np.float64)
        and bool(np.isfinite(array).all())
        for name, array in state.items()
    )


def rule_named(name: str) -> NamedRule:
    """Return a rule by NAME or NAME:OPTION=VALUE,...

    Raises InvalidInputError for an unknown rule or option, and when what another distribution brings under
    the name cannot be used.
    """
    parsed = RuleName(name, *taken_apart(_KIND, name, _EXAMPLE))
    preset = parsed.preset
    found = BUILT_IN.get(preset) or load_from_outside(GROUP, _KIND, preset, _is_rule)
    if found is None:
        raise InvalidInputError(unknown_name(_KIND, preset, known_names(GROUP, _KIND, BUILT_IN)))
    rule = found if isinstance(found, Rule) else _of_function(found)
    aggregate = rule.with_options(parsed)
    parsed.finish()
    return NamedRule(name, rule.suits_statistics, aggregate, preset in BUILT_IN)


def rule_for(method: str, name: str | None) -> NamedRule:
    """Return the rule of that name for a method, its default where the name is None.

    Raises InvalidInputError as `rule_named` does, and where the rule does not suit the method.
    """
    statistics = method_named(method).sends_statistics
    rule = rule_named(name or (DEFAULT_OF_STATISTICS if statistics else DEFAULT))
    if statistics and not rule.suits_statistics:
        raise InvalidInputError(
            f"rule {name!r} does not suit method {method!r}, which sends statistics that must add up "
            f"over the rounds; leave `rule` out, or name {DEFAULT_OF_STATISTICS!r} or 'weighted_mean'"
        )
    return rule


def _is_rule(loaded: Any) -> bool:
    return isinstance(loaded, Rule) or callable(loaded)


def _of_function(function: Any) -> Rule:
    """Return the rule of a function of (weight, delta) pairs and the specification to a delta."""

    def with_options(name: NameWithOptions) -> Aggregate:
        def aggregate(updates: Updates, specification: HeadSpecification, state: RuleState) -> Aggregated:
            pairs: Iterable[tuple[float, NamedArrays]] = (
                (update.weight, update.delta()) for update in updates
            )
            return Aggregated(function(pairs, specification))

        return aggregate

    # Whoever brings a rule of their own answers for what it does to statistics, as before there were others.
    return Rule(with_options, suits_statistics=True)
