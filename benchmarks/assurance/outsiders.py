"""Images that are none of what a federation is about, and what is near it and wrong."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_sample_images

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.opening import read_image
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.preprocessing import fit

NUMBER = 100
_SIDE = 128
_BATCH = 16

Pixels = npt.NDArray[np.uint8]


def outsiders(bundle: Bundle, own: Path, foreign: Path | None) -> dict[str, npt.NDArray[np.float32]]:
    """Return embeddings float32 (N, D) of at most `NUMBER` images of each kind.

    `own` is a folder of images as the federation's, to be inverted, turned over, or of another contrast;
    `foreign` one of another modality, left out where there is none.
    """
    known = [np.asarray(image) for image in _images(own)]
    kinds: dict[str, list[Pixels]] = {}
    if foreign is not None:
        kinds["another modality"] = [np.asarray(image) for image in _images(foreign)]
    kinds |= {
        "photographs": _photographs(),
        "noise": list(np.random.default_rng(0).integers(0, 256, (NUMBER, _SIDE, _SIDE, 3), dtype=np.uint8)),
        "blank": [np.full((_SIDE, _SIDE, 3), grey, np.uint8) for grey in np.linspace(0, 255, NUMBER)],
        "inverted": [255 - image for image in known],
        "upside down": [np.ascontiguousarray(image[::-1]) for image in known],
        "other contrast": [(255 * (image / 255.0) ** 2.5).astype(np.uint8) for image in known],
    }
    with Encoder(bundle, 1) as encoder:
        return {kind: _embedded(encoder, bundle, images) for kind, images in kinds.items()}


def _embedded(encoder: Encoder, bundle: Bundle, images: list[Pixels]) -> npt.NDArray[np.float32]:
    fitted = np.stack([fit(Image.fromarray(image), bundle.manifest.preprocessing) for image in images])
    parts = [encoder.encode(fitted[first : first + _BATCH]) for first in range(0, len(fitted), _BATCH)]
    return np.concatenate(parts)


def _images(folder: Path) -> Iterator[Image.Image]:
    paths = list_images([str(folder)])
    for row in np.linspace(0, len(paths) - 1, min(NUMBER, len(paths))).astype(int):
        yield read_image(paths[row]).convert("RGB")


def _photographs() -> list[Pixels]:
    """Return pieces of two photographs: a temple, a flower."""
    generator, pictures = np.random.default_rng(0), load_sample_images().images
    pieces = []
    for number in range(NUMBER):
        picture = pictures[number % len(pictures)]
        top, left = (int(generator.integers(0, side - _SIDE)) for side in picture.shape[:2])
        pieces.append(np.ascontiguousarray(picture[top : top + _SIDE, left : left + _SIDE]))
    return pieces
