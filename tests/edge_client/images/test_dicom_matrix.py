"""Every combination of how a DICOM file may store a picture gives the picture of the standard's formulas.

The formulas stand here a second time, written from the standard, not from our readers. Files are made here,
with anything in the bits that mean nothing.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedmedclip.edge_client.images.opening import decode_image
from tests.edge_client.images.dicom_files import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    NATIVE,
    RLE,
    dicom_file,
    image_elements,
    native_bytes,
)
from tests.edge_client.images.frame_encoders import jpeg_2000, jpeg_lossless, jpeg_ls_frame, rle

Numbers = npt.NDArray[Any]
# As small as the codecs allow.
HEIGHT, WIDTH = 32, 34
ENCODERS = {JPEG_LOSSLESS: jpeg_lossless, JPEG_LS: jpeg_ls_frame, JPEG_2000: jpeg_2000}
# Bits allocated, stored, and the highest bit.
GREY_BITS = [(8, 8, 7), (8, 6, 5), (8, 6, 7), (16, 12, 11), (16, 12, 15), (16, 10, 13), (16, 16, 15)]
DEEP_BITS = [(32, 20, 19), (32, 20, 23), (32, 32, 31)]
RESCALES: list[dict[str, str]] = [
    {},
    {"RescaleSlope": "2.5"},
    {"RescaleIntercept": "-1024"},
    {"RescaleSlope": "-0.5", "RescaleIntercept": "100"},
]


def stored_values(bits: int, signed: bool) -> Numbers:
    """A ramp through the whole range, bent so that no row is like another: int64 (HEIGHT, WIDTH)."""
    lowest, highest = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    ramp = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) ** 1.5
    return np.round(lowest + ramp * (highest - lowest)).astype(np.int64)


def cells_of(values: Numbers, bits: tuple[int, int, int], *, signed: bool, junk: bool) -> Numbers:
    """Pixel cells with the values' two's complement below the high bit, and junk around them where wanted."""
    allocated, stored, high_bit = bits
    below = high_bit + 1 - stored
    within = ((1 << stored) - 1) << below
    cells = (values & ((1 << stored) - 1)) << below
    if junk:
        around = np.random.default_rng(1).integers(0, 1 << allocated, values.shape)
        cells |= around & ~within & ((1 << allocated) - 1)
    return cells.astype(f"u{allocated // 8}").view(f"{'i' if signed else 'u'}{allocated // 8}")


def sent(cells: Numbers, values: Numbers, bits: tuple[int, int, int], syntax: str) -> bytes | list[bytes]:
    """Cells as the pixel data of a syntax. Codecs take the values alone, where nothing is shifted."""
    if syntax in NATIVE:
        return native_bytes(cells, syntax)
    if syntax == RLE:
        return [rle(cells)]
    allocated, stored, high_bit = bits
    if high_bit == stored - 1:
        return [ENCODERS[syntax](values.astype(cells.dtype), stored)]
    return [ENCODERS[syntax](cells, allocated)]


def shown(measured: Numbers, voi: tuple[Any, ...], inverted: bool) -> Numbers:
    """Measured values as levels: PS3.3 C.11.2.1.2.1 for a window, C.11.2.1.1 for a table, else the range."""
    match voi:
        case "window", centre, width:
            levels = (measured - (centre - 0.5)) / (width - 1) + 0.5
            levels[measured <= centre - 0.5 - (width - 1) / 2] = 0
            levels[measured > centre - 0.5 + (width - 1) / 2] = 1
        case "table", first, entries, largest:
            places = np.floor(measured).astype(int) - first
            levels = np.array(entries)[places.clip(0, len(entries) - 1)] / largest
        case _:
            levels = (measured - measured.min()) / (measured.max() - measured.min())
    return np.floor((1 - levels if inverted else levels) * 255 + 0.5)


def voi_choices(measured: Numbers, signed_output: bool) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What is shown, and the elements that say so."""
    yield ("range",), {}
    centre, width = float(np.round(np.median(measured))), float(np.round(np.ptp(measured) / 2)) + 2
    yield ("window", centre, width), {"WindowCenter": f"{centre:.0f}", "WindowWidth": f"{width:.0f}"}
    first = int(np.clip(np.percentile(measured, 25), -32768 if signed_output else 0, 32767))
    entries = np.linspace(0, 1023, 300).astype(int).tolist()
    item = {
        "LUTDescriptor": ("US", [len(entries), first & 0xFFFF, 10]),
        "LUTData": ("OW", entries),
    }
    yield ("table", first, entries, 1023), {"VOILUTSequence": [item]}


def grey_of(content: bytes) -> Numbers:
    image = np.asarray(decode_image(content, Path("scan")), dtype=int)
    assert (image == image[..., :1]).all()
    return image[..., 0]


GREY = [
    *product([IMPLICIT, BIG_ENDIAN, RLE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000], GREY_BITS),
    *product([EXPLICIT, DEFLATED], [(8, 6, 7), (16, 12, 15)]),
    *product([IMPLICIT, BIG_ENDIAN, RLE], DEEP_BITS),
]


@pytest.mark.parametrize(("syntax", "bits"), GREY)
def test_grey(syntax: str, bits: tuple[int, int, int]) -> None:
    for signed in (False, True):
        values = stored_values(bits[1], signed)
        cells = cells_of(values, bits, signed=signed, junk=syntax in (*NATIVE, RLE))
        check_grey(
            values,
            image_elements(cells, BitsStored=bits[1], HighBit=bits[2]),
            sent(cells, values, bits, syntax),
            syntax,
        )


def check_grey(values: Numbers, header: dict[str, Any], pixels: bytes | list[bytes], syntax: str) -> None:
    for rescale in RESCALES:
        slope, intercept = float(rescale.get("RescaleSlope", 1)), float(rescale.get("RescaleIntercept", 0))
        measured = values * slope + intercept
        for (voi, said), photometric in product(
            voi_choices(measured, bool(measured.min() < 0)), ["MONOCHROME1", "MONOCHROME2"]
        ):
            elements = header | rescale | said | {"PhotometricInterpretation": photometric}
            expected = shown(measured, voi, photometric == "MONOCHROME1")
            np.testing.assert_allclose(
                grey_of(dicom_file(elements, pixels, syntax)), expected, atol=1, err_msg=str(elements)[:400]
            )
