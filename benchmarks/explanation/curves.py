"""Deletion and insertion (Petsiuk et al. 2018, "RISE", section 4): what a map is worth, without a truth.

The answered class's probability while pixels are replaced by grey, the most important first (deletion: a good
map makes it fall soon), and while they are put back into a blurred image (insertion: it rises soon).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.explanation.maps import Map
from fedmedclip.edge_client.inference.regions import Classify, Pixels, blurred

STEPS = 16
# A share of the width; none of the covers that occlusion may use, so that none is favoured.
_BLUR = 1 / 12


@dataclass(frozen=True)
class Curves:
    """Probabilities float64 (STEPS + 1,) of the answered class after each step."""

    deletion: npt.NDArray[np.float64]
    insertion: npt.NDArray[np.float64]

    @property
    def areas(self) -> tuple[float, float, float]:
        """The areas below deletion and insertion, from 0 to 1, and insertion less deletion."""
        deletion, insertion = (
            float(np.trapezoid(curve) / STEPS) for curve in (self.deletion, self.insertion)
        )
        return deletion, insertion, insertion - deletion


def curves_of(
    found: Map, classify: Classify, pixels: Pixels, mean: tuple[float, float, float], seed: int
) -> Curves:
    """Return both curves of a map; pixels that it does not tell apart come in an order drawn by `seed`.

    Grey is `mean`, the colour that the encoder's preprocessing subtracts.
    """
    label = int(classify(pixels[None])[0].argmax())
    size = found.size
    order = np.lexsort((np.random.default_rng(seed).random(size), -found.ravel()))
    original, soft = pixels.reshape(-1, 3), blurred(pixels, _BLUR).reshape(-1, 3)
    grey = np.rint(255 * np.array(mean)).astype(np.uint8)
    images = []
    for step in range(STEPS + 1):
        chosen = order[: round(step * size / STEPS)]
        deleted, inserted = original.copy(), soft.copy()
        deleted[chosen] = grey
        inserted[chosen] = original[chosen]
        images += [deleted.reshape(pixels.shape), inserted.reshape(pixels.shape)]
    probabilities = classify(np.stack(images))[:, label].astype(np.float64)
    return Curves(probabilities[::2], probabilities[1::2])
