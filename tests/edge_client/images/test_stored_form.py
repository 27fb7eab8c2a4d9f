"""How a file stores its image is told by the header, and never costs a site its start."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedmedclip.edge_client.images.opening import quiet_decoders, stored_form
from fedmedclip.edge_client.images.readers.stored_form import StoredForm
from tests.edge_client.conftest import random_pixels
from tests.edge_client.images.dicom_files import dicom_file, image_elements, native_bytes

COLOURS = Image.fromarray(random_pixels(1))
GREY = COLOURS.convert("L")
DEEP = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
CELLS = np.arange(1200, dtype=np.uint16).reshape(30, 40)


@pytest.mark.parametrize(
    ("name", "image", "words"),
    [
        ("a.jpg", COLOURS, "JPEG, 8-bit colour"),
        ("a.jpg", GREY, "JPEG, 8-bit grey"),
        ("a.png", GREY, "PNG, 8-bit grey"),
        ("a.png", DEEP, "PNG, 16-bit grey"),
        ("a.png", COLOURS.quantize(16), "PNG, 8-bit palette"),
        ("a.png", GREY.convert("1"), "PNG, 1-bit grey"),
        ("a.tif", DEEP, "TIFF, 16-bit grey"),
        ("a.tif", DEEP.convert("F"), "TIFF, 32-bit grey"),
        ("a.bmp", COLOURS, "BMP, 8-bit colour"),
        # What it is called does not decide.
        ("a.dcm", GREY, "PNG, 8-bit grey"),
    ],
)
def test_plain_files(tmp_path, name, image, words):
    path = tmp_path / name
    image.save(path, "PNG" if name.endswith(".dcm") else None)
    found = stored_form(path)
    assert found is not None
    assert (found.words(), found.size) == (words, (40, 30))


def test_dicom_has_the_bits_that_are_stored(tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes(dicom_file(image_elements(CELLS, BitsStored=12, HighBit=11), native_bytes(CELLS)))
    assert stored_form(path) == StoredForm("DICOM", 12, "grey", (40, 30))


def test_volumes(tmp_path):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 40, 30, 5, 1, 1, 1, 1)
    struct.pack_into("<h", header, 70, 4)
    header[344:348] = b"n+1\0"
    path = tmp_path / "head.nii"
    path.write_bytes(header)
    assert stored_form(path) == StoredForm("NIfTI", 16, "grey", (40, 30))


@pytest.mark.parametrize("shape", [(3, 30, 40), (3, 30, 40, 1), (3, 1, 30, 40)])
def test_archives(tmp_path, shape):
    np.savez(
        tmp_path / "a.npz", test_images=np.zeros(shape, np.uint8), test_labels=np.zeros((3, 1), np.uint8)
    )
    assert stored_form(tmp_path / "a.npz#test=000002") == StoredForm("archive", 8, "grey", (40, 30))


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_tells_nothing_and_raises_nothing(tmp_path, data):
    kinds = {"png": GREY, "jpg": COLOURS, "tif": DEEP}
    kind = data.draw(st.sampled_from([*kinds, "dcm"]))
    path = tmp_path / f"a.{kind}"
    if kind == "dcm":
        path.write_bytes(dicom_file(image_elements(CELLS), native_bytes(CELLS)))
    else:
        kinds[kind].save(path)
    content = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, min(len(content), 400) - 1), max_size=5)):
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with quiet_decoders():
        found = stored_form(path)
    assert found is None or found.words()
