"""What each site weighs in a round: by its images or alike, no more than approved, and not above a cap."""

from collections.abc import Callable, Mapping
from typing import Literal

Weighting = Literal["samples", "equal"]
MostSamples = Callable[[str], int | None]
"""How many samples a site may count for at most; None: as many as it says."""

CAPPED_FROM = 3
"""With fewer sites no cap applies: of two, one has half or more."""


def anything(site: str) -> None:
    """Let a site count for as many samples as it says."""


def weights_of(
    samples: Mapping[str, int],
    weighting: Weighting,
    maximum_share: float,
    most_samples: MostSamples = anything,
) -> dict[str, float]:
    """Return each site's weight; `samples` is how many training images each says are behind its update.

    With "samples" a site weighs its samples, at most `most_samples` of it; with "equal" all weigh 1. Where
    three or more deliver, none has more than `maximum_share` of the sum of all weights: see `capped`. The
    same whatever the order of the sites.
    """
    weights: dict[str, float] = {}
    for site in sorted(samples):
        most = most_samples(site)
        count = samples[site] if most is None else min(samples[site], most)
        # A site that may count for nothing is no reason to fail a round of such sites alone.
        weights[site] = float(max(count, 1)) if weighting == "samples" else 1.0
    return capped(weights, maximum_share) if len(weights) >= CAPPED_FROM else weights


def capped(weights: Mapping[str, float], maximum_share: float) -> dict[str, float]:
    """Lower the largest weights so that none is above `maximum_share` of the sum of what is returned.

    Water-filling: with the k largest at the cap and the others, as they are, at U in all, the sum is T = U +
    k * maximum_share * T; k is the smallest number for which nobody else is above the cap. Weights that are
    not lowered keep their bits. All are equal where the cap allows nothing else.
    """
    ranked = sorted(weights, key=lambda site: (-weights[site], site))
    for lowered in range(len(ranked)):
        free = 1.0 - lowered * maximum_share
        if free <= 0.0:
            break
        rest = 0.0
        for site in sorted(ranked[lowered:]):
            rest += weights[site]
        cap = maximum_share * (rest / free)
        if weights[ranked[lowered]] <= cap:
            return {site: cap if site in ranked[:lowered] else weight for site, weight in weights.items()}
    return dict.fromkeys(weights, 1.0)
