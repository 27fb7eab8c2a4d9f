"""Maps of what carries an answer: occlusion as the product does it, others, and maps that say nothing."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedmedclip.edge_client.inference.regions import (
    CELLS,
    SCALES,
    Classify,
    Cover,
    Pixels,
    Regions,
    Scale,
    blurred,
    log_probability,
    regions_of,
)

Map = npt.NDArray[np.float32]
MakeMap = Callable[[Classify, Pixels, int], Map]
"""(classifier, image, number of the image) to a map float32 (height, width); more is earlier."""

_RISE_MASKS = 58
COVERS: dict[str, Cover] = {
    "black": np.zeros_like,
    "mean colour": lambda pixels: np.broadcast_to(
        np.rint(pixels.reshape(-1, 3).mean(axis=0)).astype(np.uint8), pixels.shape
    ),
    "blur, width / 4": partial(blurred, share=1 / 4),
    "blur, width / 8": partial(blurred, share=1 / 8),
    "blur, width / 16": partial(blurred, share=1 / 16),
}
SCALE_SETS = {
    "7 x 7": SCALES[1:],
    "3 x 3, 7 x 7": SCALES,
    "3 x 3, 7 x 7, 8 x 8": (*SCALES, Scale(1, 1)),
}

USUAL_COVER, USUAL_SCALES = "blur, width / 16", "3 x 3, 7 x 7"
"""The product's."""


def occlusion(classify: Classify, pixels: Pixels, number: int) -> Map:
    """The product's own."""
    return _smooth(regions_of(classify, pixels), pixels)


def occlusion_by(cover: str, scales: str) -> MakeMap:
    """Occlusion with another cover of `COVERS` on other scales of `SCALE_SETS`."""

    def make(classify: Classify, pixels: Pixels, number: int) -> Map:
        found = regions_of(classify, pixels, scales=SCALE_SETS[scales], cover=COVERS[cover])
        return _smooth(found, pixels)

    return make


def random_masks(classify: Classify, pixels: Pixels, number: int) -> Map:
    """RISE (Petsiuk et al. 2018) with as many runs of the encoder as occlusion takes, and its cover."""
    generator = np.random.default_rng(number)
    height, width = pixels.shape[:2]
    masks = np.stack(
        [enlarged(generator.random((CELLS, CELLS)) < 0.5, height, width) for _ in range(_RISE_MASKS)]
    )
    covered = blurred(pixels).astype(np.float32)
    images = covered + masks[..., None] * (pixels - covered)
    label = int(classify(pixels[None])[0].argmax())
    found = log_probability(classify(np.rint(images).astype(np.uint8)), label)
    weighted: Map = np.einsum("n,nhw->hw", found - found.mean(), masks).astype(np.float32)
    return weighted


def random_map(classify: Classify, pixels: Pixels, number: int) -> Map:
    """Cells by chance."""
    return enlarged(np.random.default_rng([number, 1]).random((CELLS, CELLS)), *pixels.shape[:2])


def centred_gaussian(classify: Classify, pixels: Pixels, number: int) -> Map:
    """What is in the middle, whatever the image: standard deviation a quarter of the side."""
    y, x = (np.arange(size) / size - 0.5 + 0.5 / size for size in pixels.shape[:2])
    bell: Map = np.exp(-8 * (y[:, None] ** 2 + x[None] ** 2)).astype(np.float32)
    return bell


def _smooth(found: Regions, pixels: Pixels) -> Map:
    return found.in_pixels(*pixels.shape[:2])


def enlarged(cells: npt.NDArray[np.generic], height: int, width: int) -> Map:
    """Return cells (h, w) as a map of so many pixels, smooth from cell to cell."""
    image = Image.fromarray(cells.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
