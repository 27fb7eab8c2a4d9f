"""Sites for a simulation: the natural ones, or the pooled images dealt out again among any number of sites.

A site here is only a name and three lists of image numbers; ten thousand of them are a few megabytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.images.split import DEFAULT_FRACTIONS, ContentLabel, Part, draw_parts
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.seeds import derive_seed

Indices = npt.NDArray[np.int64]

MINIMUM_TRAINING_IMAGES = 2
MAXIMUM_SITES = 10_000


@dataclass(frozen=True)
class VirtualSite:
    """A site's name and its images: indices into the pool, int64, in three parts that share no group."""

    name: str
    train: Indices
    validation: Indices
    test: Indices

    @property
    def images(self) -> Indices:
        """All of its images, in ascending order."""
        return np.sort(np.concatenate([self.train, self.validation, self.test]))


@dataclass(frozen=True)
class VirtualSites:
    """The sites that can take part, by name; `left_out` have fewer than two training images."""

    sites: tuple[VirtualSite, ...]
    left_out: int

    @property
    def test(self) -> Indices:
        """The test images of all sites that can take part."""
        return np.concatenate([site.test for site in self.sites])

    def participants(self, number: int | None, seed: int, round_number: int) -> tuple[VirtualSite, ...]:
        """Return `number` different sites drawn for a round, in the order of their names; None: all."""
        if number is None or number >= len(self.sites):
            return self.sites
        draw = np.random.Generator(
            np.random.Philox(derive_seed(seed, round_number=round_number, purpose="participation"))
        )
        return tuple(self.sites[i] for i in sorted(draw.choice(len(self.sites), number, replace=False)))


@dataclass(frozen=True)
class Images:
    """What decides where images go: labels and groups int64 (N,), and the SHA-256 of each image's content.

    Images with equal numbers in `groups` stay at one site, and there in one part.
    """

    labels: Indices
    groups: Indices
    content_hashes: Sequence[bytes]


def natural_sites(
    images: Images,
    site_of: Indices,
    names: Sequence[str],
    seed: int,
    fractions: Mapping[Part, float] = DEFAULT_FRACTIONS,
) -> VirtualSites:
    """Return the sites as they are; `site_of` (N,) are indices into `names`."""
    members = [np.flatnonzero(site_of == number) for number in range(len(names))]
    return _split(list(names), members, images, seed, fractions)


def dirichlet_sites(
    images: Images,
    number: int,
    alpha: float,
    seed: int,
    fractions: Mapping[Part, float] = DEFAULT_FRACTIONS,
) -> VirtualSites:
    """Deal the images out among `number` sites.

    For each class the sites' shares are drawn from a symmetric Dirichlet distribution of concentration
    `alpha` (Hsu et al. 2019, "Measuring the effects of non-identical data distribution"; per class as in Li
    et al. 2022, "Federated learning on non-IID data silos"): large alpha gives equal sites, small alpha sites
    of one class. Groups are dealt whole. Raises InvalidInputError for numbers that cannot be used.
    """
    check_dealing(number, alpha)
    draw = np.random.Generator(np.random.Philox(derive_seed(seed, purpose="virtual sites")))
    site_of = np.empty(len(images.labels), dtype=np.int64)
    main_labels = labels_of_groups(images.labels, images.groups)
    for label in np.unique(main_labels):
        chosen = np.flatnonzero(main_labels == label)
        order = draw.permutation(chosen)
        shares = draw.dirichlet(np.full(number, alpha))
        for site, dealt in enumerate(deal_groups(order, images.groups, shares)):
            site_of[dealt] = site
    order = np.argsort(site_of, kind="stable")
    members = np.split(order, np.searchsorted(site_of[order], np.arange(1, number)))
    return _split(site_names(number), members, images, seed, fractions)


def labels_of_groups(labels: Indices, groups: Indices) -> Indices:
    """Return for each image (N,) the label that most images of its group have, the smallest of equals."""
    _, members = np.unique(groups, return_inverse=True)
    counts = np.zeros((int(members.max()) + 1, int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (members, labels), 1)
    found: Indices = counts.argmax(axis=1)[members]
    return found


def deal_groups(order: Indices, groups: Indices, shares: npt.NDArray[np.float64]) -> list[Indices]:
    """Return each site's images: groups in the order of their first image in `order`, whole, by `shares`.

    Laid end to end, a group goes to the site in whose stretch its middle lies.
    """
    _, first, members, sizes = np.unique(
        groups[order], return_index=True, return_inverse=True, return_counts=True
    )
    by_place = np.argsort(first)
    ends = np.cumsum(share_out(len(order), shares))
    middles = np.cumsum(sizes[by_place]) - (sizes[by_place] + 1) // 2
    site_of_group = np.empty(len(sizes), dtype=np.int64)
    site_of_group[by_place] = np.searchsorted(ends, middles, side="right")
    site_of = site_of_group[members]
    return [order[site_of == site] for site in range(len(shares))]


def check_dealing(number: int, alpha: float) -> None:
    """Raise InvalidInputError unless images can be dealt among so many sites with this concentration."""
    if not 1 <= number <= MAXIMUM_SITES:
        raise InvalidInputError(f"{number} sites cannot be simulated; give 1 to {MAXIMUM_SITES}")
    if not 1e-3 <= alpha <= 1e6:
        raise InvalidInputError(f"alpha is {alpha}; give a number from 0.001 to 1000000")


def share_out(count: int, shares: npt.NDArray[np.float64]) -> Indices:
    """Return how many of `count` images each site gets, int64 like `shares`, which add up to about 1."""
    bounds = np.cumsum(shares)
    ends: Indices = np.rint(bounds / bounds[-1] * count).astype(np.int64)
    counts: Indices = np.diff(ends, prepend=0)
    return counts


def site_names(number: int) -> list[str]:
    """Return the names of so many dealt sites, in their alphabetical order."""
    width = len(str(number - 1))
    return [f"site-{index:0{width}}" for index in range(number)]


def _split(
    names: list[str],
    members: list[Indices],
    images: Images,
    seed: int,
    fractions: Mapping[Part, float],
) -> VirtualSites:
    sites = []
    for name, chosen in zip(names, members, strict=True):
        site = _split_site(name, chosen, images, derive_seed(seed, site=name, purpose="split"), fractions)
        if len(site.train) >= MINIMUM_TRAINING_IMAGES:
            sites.append(site)
    if not sites or not any(len(site.test) for site in sites):
        raise InvalidInputError(
            f"none of {len(names)} sites has two training images, or none has a test image; "
            "give fewer sites or a larger alpha"
        )
    return VirtualSites(tuple(sites), len(names) - len(sites))


def _split_site(
    name: str, chosen: Indices, images: Images, seed: int, fractions: Mapping[Part, float]
) -> VirtualSite:
    by_content = {images.content_hashes[image]: int(image) for image in chosen}
    parts = draw_parts(
        (
            ContentLabel(str(images.labels[image]), str(image), content, str(images.groups[image]))
            for content, image in by_content.items()
        ),
        {},
        seed,
        fractions,
    )
    of_part: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for content, image in by_content.items():
        of_part[parts[content]].append(image)
    arrays = {part: np.array(numbers, dtype=np.int64) for part, numbers in of_part.items()}
    return VirtualSite(name, arrays["train"], arrays["validation"], arrays["test"])
