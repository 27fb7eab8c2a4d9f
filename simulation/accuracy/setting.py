"""What all rows of a comparison have in common beside data and seeds, as data and in words."""

from collections.abc import Mapping, Sequence

import msgspec

from fedmedclip.simulation.federation.experiment import Experiment, Selection
from fedmedclip.simulation.federation.virtual_sites import VirtualSites


class Setting(msgspec.Struct, frozen=True):
    """How the sites were made, and which heads are reported.

    `sites` is how many sites there are, by seed; `dealt_among` and `alpha` are None for hospitals as they
    are. `fractions` are those of training, validation and test images at a site. `rule` None is each
    method's default. `least_images` and `least_images_per_class` are the floors of every site.
    """

    sites: dict[str, int]
    dealt_among: int | None
    alpha: float | None
    sites_per_round: int | None
    fractions: tuple[float, float, float]
    select: Selection
    rule: str | None
    least_images: int
    least_images_per_class: int

    def in_words(self) -> str:
        """Return it as the part of a sentence."""
        numbers = sorted(set(self.sites.values()))
        count = "sites: " + " to ".join(map(str, dict.fromkeys([numbers[0], numbers[-1]])))
        if self.dealt_among is not None:
            count += f" (all images dealt out among {self.dealt_among}, Dirichlet alpha {self.alpha:g})"
        if self.sites_per_round is not None:
            count += f", {self.sites_per_round} of them drawn for each round"
        parts = "/".join(f"{100 * share:g}" for share in self.fractions)
        return (
            f"{count}, {parts} % of a site's images to train, validate and test, aggregation rule "
            f"{self.rule or 'by default'}, heads of {_SELECTED[self.select]}"
        )


_SELECTED: Mapping[Selection, str] = {
    "last": "the last round",
    "best-validation": "the round with the best mean accuracy over the sites' validation images (ensemble; "
    "of equals the first; no test image has a part in it)",
}


def setting_of(common: Experiment, sites: Mapping[int, VirtualSites]) -> Setting:
    """Return the setting of all rows that `common` describes, with the sites of each seed."""
    dealing = common.dealing
    return Setting(
        {str(seed): len(dealt.sites) for seed, dealt in sites.items()},
        dealing.sites,
        None if dealing.sites is None else dealing.alpha,
        common.sites_per_round,
        dealing.fractions,
        common.select,
        common.rule,
        common.floors.least_images,
        common.floors.least_images_per_class,
    )


def tested_in_all(sites: Mapping[int, VirtualSites], setting: Setting) -> Sequence[str]:
    """Return the names of the sites with test images under every seed; none of sites that were dealt out.

    Those have nothing but their names in common with the sites of another seed.
    """
    if setting.dealt_among is not None:
        return ()
    of_seeds = [{site.name for site in dealt.sites if len(site.test)} for dealt in sites.values()]
    first = next(iter(sites.values()))
    return tuple(site.name for site in first.sites if all(site.name in names for names in of_seeds))
