"""From an image to the encoder's uint8 input: the resize and crop that open_clip uses for inference.

Sizes, rounding and crop offsets follow open_clip's `image_transform` (and the torchvision functions that it
calls) to the pixel, because a shift by one pixel already moves an embedding. Normalisation is not done here:
it is part of the exported encoder.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.bundle.bundle import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow's numbers for its filters, so that this module works on a Pillow image without importing Pillow.
RESAMPLING_FILTERS = {"bilinear": 2, "bicubic": 3}


def fit(image: "Image", preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Resize and crop a Pillow image of any size to the encoder's input: uint8 (height, width, 3), RGB.

    As in open_clip, the image is resized in its own mode and converted to RGB last; `shortest` with a target
    that is not square is always bicubic there, whatever the interpolation says, and so it is here.
    """
    target = (preprocessing.width, preprocessing.height)
    interpolation = preprocessing.interpolation
    match preprocessing.resize_mode:
        case "squash":
            size = target
        case "longest":
            size = _scaled(image.size, target, covering=False)
        case "shortest" if preprocessing.width == preprocessing.height:
            size = _shortest_edge(image.size, preprocessing.width)
        case "shortest":
            size = _scaled(image.size, target, covering=True)
            interpolation = "bicubic"
    resized = image.resize(size, RESAMPLING_FILTERS[interpolation])
    fill_color = preprocessing.fill_color if preprocessing.resize_mode == "longest" else 0
    return np.array(_center(resized, target, fill_color).convert("RGB"))


def _shortest_edge(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """(width, height) whose shorter edge is `edge`; the longer one is rounded down, as in torchvision."""
    width, height = size
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def _scaled(size: tuple[int, int], target: tuple[int, int], *, covering: bool) -> tuple[int, int]:
    """(width, height) that covers the target, or fits into it, with the proportions of `size`."""
    ratios = (size[0] / target[0], size[1] / target[1])
    ratio = min(ratios) if covering else max(ratios)
    # A thread-like image would round to nothing; open_clip fails there.
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


def _center(image: "Image", target: tuple[int, int], fill_color: int) -> "Image":
    """Crop the middle of the image; where it is smaller than the target, surround it with `fill_color`."""
    padded = (max(image.width, target[0]), max(image.height, target[1]))
    if padded != image.size:
        corner = ((padded[0] - image.width) // 2, (padded[1] - image.height) // 2)
        canvas = image.crop((0, 0, *padded))
        bands = len(image.getbands())
        canvas.paste(fill_color if bands == 1 else (fill_color,) * bands, (0, 0, *padded))
        canvas.paste(image, corner)
        image = canvas
    left = round((image.width - target[0]) / 2)
    top = round((image.height - target[1]) / 2)
    return image.crop((left, top, left + target[0], top + target[1]))
