"""A data folder with one of each thing that a report has to find."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.edge_client.images.dicom_files import dicom_file, image_elements, native_bytes


def scan(seed: int, size: int = 96) -> Image.Image:
    """A grey image of smooth spots, different for every seed, that survives JPEG and resizing."""
    coarse: npt.NDArray[np.uint8] = np.random.default_rng(seed).integers(0, 256, (7, 7), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """20 glioma and 20 healthy images; of glioma/00 there are copies of each kind, one of them as healthy."""
    root = tmp_path / "data"
    for first, label in enumerate(("glioma", "healthy")):
        (root / label).mkdir(parents=True)
        for number in range(20):
            scan(100 * first + number).save(root / label / f"{number:02}.png")
    glioma = root / "glioma"
    original = scan(0)
    shutil.copy(glioma / "00.png", glioma / "copied.png")
    original.save(glioma / "same-pixels.bmp")
    original.save(glioma / "resaved.jpg", quality=70)
    original.resize((64, 64), Image.Resampling.BICUBIC).save(glioma / "smaller.png")
    original.point(lambda value: min(255, int(0.9 * value) + 25)).save(root / "healthy" / "brighter.png")
    return root


@pytest.fixture
def odd_files(scans: Path) -> Path:
    """Beside them a file that was cut off, a DICOM file of 12 bits, a 16-bit PNG and one that is no image."""
    folder = scans / "healthy"
    whole = (folder / "03.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    cells = (np.asarray(scan(300, 80)).astype(np.uint16)) * 16
    (folder / "IM0001").write_bytes(
        dicom_file(image_elements(cells, BitsStored=12, HighBit=11), native_bytes(cells))
    )
    Image.fromarray(np.asarray(scan(301, 80)).astype(np.uint16) * 200).save(folder / "deep.png")
    (folder / "notes.txt").write_text("not an image")
    return scans
