"""The hospitals' images dealt out again, while every image stays in its part: test images stay test."""

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.virtual_sites import (
    Indices,
    VirtualSite,
    VirtualSites,
    check_dealing,
    deal_groups,
    labels_of_groups,
    site_names,
)

LEAST_TRAINING, LEAST_TEST = 10, 5
"""What every site has at least: shares are drawn until it does, as Li et al. 2022 do with 10 images."""
_DRAWS = 200


def resplit_sites(
    hospitals: VirtualSites, labels: Indices, groups: Indices, number: int, alpha: float, seed: int
) -> VirtualSites:
    """Deal the pooled images of the hospitals out among `number` sites, each part by itself.

    For each class the sites' shares are drawn from a symmetric Dirichlet distribution of concentration
    `alpha`, as in `dirichlet_sites`, and are the same in all three parts: a site is tested on the mixture of
    classes that it trains on. `labels` and `groups` (N,) are those of the whole pool; groups are dealt
    whole. Raises InvalidInputError for numbers
    that cannot be used, also where no draw gives every site `LEAST_TRAINING` and `LEAST_TEST` images.
    """
    check_dealing(number, alpha)
    draw = np.random.Generator(np.random.Philox(derive_seed(seed, purpose=f"re-split among {number}")))
    pooled = {
        part: np.sort(np.concatenate([getattr(hospital, part) for hospital in hospitals.sites]))
        for part in ("train", "validation", "test")
    }
    labels = labels_of_groups(labels, groups)
    classes = np.unique(labels)
    enough = len(pooled["train"]) >= number * LEAST_TRAINING and len(pooled["test"]) >= number * LEAST_TEST
    for _ in range(_DRAWS if enough else 0):
        shares = {int(label): draw.dirichlet(np.full(number, alpha)) for label in classes}
        dealt = {part: _deal(images, labels, groups, shares, number, draw) for part, images in pooled.items()}
        if min(map(len, dealt["train"])) >= LEAST_TRAINING and min(map(len, dealt["test"])) >= LEAST_TEST:
            return VirtualSites(
                tuple(
                    VirtualSite(name, *(dealt[part][site] for part in ("train", "validation", "test")))
                    for site, name in enumerate(site_names(number))
                ),
                left_out=0,
            )
    raise InvalidInputError(
        f"{len(pooled['train'])} training and {len(pooled['test'])} test images cannot be dealt among "
        f"{number} sites so that each has {LEAST_TRAINING} and {LEAST_TEST}; give fewer sites or a larger "
        "alpha"
    )


def _deal(
    images: Indices,
    labels: Indices,
    groups: Indices,
    shares: dict[int, npt.NDArray[np.float64]],
    number: int,
    draw: np.random.Generator,
) -> list[Indices]:
    """Return each site's images of a part, in ascending order."""
    of_sites: list[list[Indices]] = [[] for _ in range(number)]
    for label, of_class in shares.items():
        mixed = draw.permutation(images[labels[images] == label])
        for site, part in enumerate(deal_groups(mixed, groups, of_class)):
            of_sites[site].append(part)
    return [np.sort(np.concatenate(parts)) for parts in of_sites]
