"""What an aggregation rule is: a round's updates, and what it kept of the round before, to one delta.

Same bits on every machine: a rule adds in a fixed order (sites by name, arrays in the head's order), in
float64, with additions, products, quotients, square roots and comparisons of single numbers, all of which
IEEE 754 rounds in one way only. No BLAS, whose order of summation depends on the processor, and no `exp` or
`pow`, whose last bit depends on the library; sums of many values go through `arithmetic.ordered_sum`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.named_options import NameWithOptions

Floats = npt.NDArray[np.float64]
RuleState = dict[str, npt.NDArray[Any]]
"""What a rule keeps from round to round: float32 or float64 arrays by name; empty before its first round."""


@dataclass(frozen=True)
class SiteUpdate:
    """What a site sent: its weight, and how its delta is read, anew each time it is asked for."""

    site: str
    weight: float
    delta: Callable[[], NamedArrays]


def in_memory(site: str, weight: float, delta: NamedArrays) -> SiteUpdate:
    """Return an update whose delta is here already."""
    return SiteUpdate(site, weight, lambda: delta)


Updates = Sequence[SiteUpdate]
"""One update per site, sorted by site. Whoever goes through them reads one delta at a time."""


@dataclass(frozen=True)
class Remark:
    """What a rule did to a site's update other than count it, and why, in words for the operator."""

    site: str
    fate: Literal["rejected", "clipped"]
    reason: str


@dataclass(frozen=True)
class Aggregated:
    """One delta in float32, what the rule wants to see again in the next round, and what it remarked."""

    delta: NamedArrays
    state: RuleState = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()


Aggregate = Callable[[Updates, HeadSpecification, RuleState], Aggregated]
"""Equal updates and state give equal bits. There is at least one update. State that does not fit the head is
never handed in."""


@dataclass(frozen=True)
class Rule:
    """A rule by its options, which it takes from the name (`trimmed_mean:share=0.2`).

    `suits_statistics`: it is right for methods that send statistics of their images (`sends_statistics` of a
    method). These are sent once and then only what a codec left out of them, so that the deltas of all rounds
    must add up to the sites' pooled statistics: a weighted mean does that, a median does not.
    """

    with_options: Callable[[NameWithOptions], Aggregate]
    suits_statistics: bool = False
