"""Where a benchmark's images lie: hospitals as they are, or dealt out again, and into which parts."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from fedmedclip.edge_client.images.split import DEFAULT_FRACTIONS, PARTS, Part
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.resplit import resplit_sites
from fedmedclip.simulation.federation.virtual_sites import VirtualSites

Fractions = tuple[float, float, float]
"""Of training, validation and test, from 0 to 1."""

USUAL_FRACTIONS: Fractions = (
    DEFAULT_FRACTIONS["train"],
    DEFAULT_FRACTIONS["validation"],
    DEFAULT_FRACTIONS["test"],
)


class Dealing(msgspec.Struct, frozen=True):
    """The natural sites, or so many that all images are dealt out among with Dirichlet concentration `alpha`.

    `fractions` are those of each site's parts. `within` says what is dealt out: `images`, which each new
    site splits by itself, or the `parts` of the hospitals' own splits, each by itself, so that a test image
    stays one whatever the number of sites (`resplit_sites`).
    """

    sites: int | None = None
    alpha: float = 0.5
    fractions: Fractions = USUAL_FRACTIONS
    within: Literal["images", "parts"] = "images"

    def deal(self, pool: FeaturePool, seed: int) -> VirtualSites:
        """Return the sites of a seed. Raises InvalidInputError for numbers that cannot be used."""
        fractions: Mapping[Part, float] = dict(zip(PARTS, self.fractions, strict=True))
        if self.sites is None or self.within == "images":
            return pool.deal(seed, self.sites, self.alpha, fractions)
        hospitals = pool.deal(seed, fractions=fractions)
        return resplit_sites(hospitals, pool.labels, pool.groups, self.sites, self.alpha, seed)

    def description(self) -> dict[str, object]:
        """Return what the sites depend on, beside the images and the seed."""
        return {
            "sites": self.sites,
            "alpha": None if self.sites is None else self.alpha,
            "fractions": list(self.fractions),
            "within": None if self.sites is None else self.within,
        }


def read_fractions(text: str) -> Fractions:
    """Read per cents such as `60/20/20`: of training, validation and test.

    Raises InvalidInputError for anything else, also where nothing is left to train or to test on.
    """
    numbers = text.split("/")
    whole = all(number.isascii() and number.isdigit() and len(number) < 4 for number in numbers)
    percents = [int(number) for number in numbers] if whole else []
    if len(percents) != len(PARTS) or sum(percents) != 100 or 0 in (percents[0], percents[2]):
        raise InvalidInputError(
            f"--fractions {text[:40]!r}: give per cents for training, validation and test that make 100, "
            "such as 60/20/20; training and test need more than 0"
        )
    train, validation, test = (percent / 100 for percent in percents)
    return train, validation, test
