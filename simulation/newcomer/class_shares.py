"""Newcomers whose classes have other shares: what a method makes of images without labels depends on them."""

from typing import Final

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.whitening import Labels
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.virtual_sites import Indices

Doubles = npt.NDArray[np.float64]

NATURAL: Final = "natural"
BALANCED: Final = "balanced"
DIRICHLET: Final = "dirichlet"
DRAWS = 5
RESAMPLED = (BALANCED, *(f"{DIRICHLET} {number}" for number in range(1, DRAWS + 1)))
"""Beside the natural ones: each class alike, and shares drawn evenly from all that there are."""


def shares_of(name: str, classes: Labels, number: int, site: str, seed: int) -> Doubles:
    """Return the shares (C,) of `number` classes at a site: 0 for those that are not among its `classes`.

    `name` is one of `RESAMPLED`. The Dirichlet distribution is the uniform one, of concentration 1.
    """
    shares = np.zeros(number)
    if name == BALANCED:
        shares[classes] = 1 / len(classes)
    else:
        draw = _draw(name, site, seed)
        shares[classes] = draw.dirichlet(np.ones(len(classes)))
    return shares


def resampled(name: str, images: Indices, labels: Labels, shares: Doubles, site: str, seed: int) -> Indices:
    """Return as many of the images (N,), of these labels (N,), with these shares of classes (C,).

    Images of a class are drawn without replacement, and again from the start where there are too few.
    """
    exact = shares * len(images)
    numbers = exact.astype(np.int64)
    largest_rests = np.argsort(numbers - exact, kind="stable")[: len(images) - int(numbers.sum())]
    numbers[largest_rests] += 1
    draw = _draw(f"{name}, images", site, seed)
    chosen = [
        np.resize(draw.permutation(images[labels == label]), numbers[label])
        for label in np.flatnonzero(numbers)
    ]
    found: Indices = np.sort(np.concatenate(chosen)) if chosen else images[:0]
    return found


def kind_of(name: str) -> str:
    """Return `natural`, `balanced` or `dirichlet`, whichever draw of it this is."""
    return name.partition(" ")[0]


def _draw(purpose: str, site: str, seed: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(derive_seed(seed, site=site, purpose=f"class shares {purpose}"))
    )
