"""Images to compare encoders on: of many sizes, never square, with smooth areas, texture and edges.

Square images hide mistakes in resizing and cropping; images of pure noise hide mistakes in filtering.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.seeds import derive_seed

if TYPE_CHECKING:
    from PIL.Image import Image

# (width, height): camera formats both ways, odd numbers, a brain slice, one smaller than any encoder's input.
SIZES = (
    *((640, 480), (480, 640), (1024, 683), (512, 768), (500, 333), (333, 501)),
    *((181, 217), (256, 232), (801, 401), (299, 450), (97, 61), (720, 719)),
)
MAX_IMAGES_FROM_FOLDER = 64
MAX_CALIBRATION_IMAGES = 200


def generated_images() -> Iterator["Image"]:
    """Yield a fixed set of images in the manner of photographs; every third one is greyscale."""
    from PIL import Image

    for index, (width, height) in enumerate(SIZES):
        generator = np.random.default_rng(derive_seed(0, purpose=f"parity image {index}"))
        image = Image.fromarray(_photograph(width, height, generator), "RGB")
        yield image.convert("L") if index % 3 == 2 else image


def _photograph(width: int, height: int, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return uint8 (height, width, 3): ellipses on a texture whose spectrum falls as 1/frequency.

    That is the mean spectrum of natural images (Field 1987).
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(generator.standard_normal((height, width, 3)), axes=(0, 1))
    texture = np.fft.irfft2(spectrum / frequency[..., None], s=(height, width), axes=(0, 1))
    picture = 128 + 45 * texture / texture.std()
    rows, columns = np.mgrid[0:height, 0:width]
    for _ in range(6):
        row, column = generator.uniform(0.1, 0.9, 2) * (height, width)
        radii = generator.uniform(0.05, 0.3, 2) * (height, width)
        inside = ((rows - row) / radii[0]) ** 2 + ((columns - column) / radii[1]) ** 2 < 1
        picture[inside] = 0.4 * picture[inside] + 0.6 * generator.uniform(0, 255, 3)
    pixels: npt.NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return pixels


def images_in(folder: Path) -> Iterator["Image"]:
    """Yield up to 64 readable images of a folder and its sub-folders, spread evenly over their sorted names.

    Raises InvalidInputError when the folder has none.
    """
    return (image for image, _ in labelled_images_in(folder, MAX_IMAGES_FROM_FOLDER, "--images"))


def labelled_images_in(
    folder: Path, most: int = MAX_CALIBRATION_IMAGES, option: str = "--calibrate"
) -> Iterator[tuple["Image", str]]:
    """Yield up to `most` readable images, spread likewise, each with the name of the folder that it is in.

    Raises InvalidInputError, which names the `option` that the folder came from, when the folder has none.
    """
    from PIL import Image

    extensions = Image.registered_extensions()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in extensions)
    step = max(1, -(-len(paths) // most))
    found = False
    for path in paths[::step]:
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
        found = True
        yield image, path.parent.name
    if not found:
        raise InvalidInputError(f"no readable image in {folder}; {option} takes a folder with images")
