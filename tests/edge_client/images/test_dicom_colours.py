"""Colours of every transfer syntax are what was encoded, whatever a header left from before says of them."""

import io
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fedmedclip.edge_client.images.opening import UnreadableImageError, decode_image
from tests.edge_client.images.dicom_files import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    JPEG,
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

Colours = npt.NDArray[Any]
PLANAR = [0, 1, None]
HEIGHT, WIDTH = 40, 48


def picture(bits: int = 8) -> Colours:
    """Smooth colours of every hue, so that lossy codecs come close: (HEIGHT, WIDTH, 3)."""
    across, down = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
    shares = np.stack([across, down, 1 - (across + down) / 2], axis=-1)
    return np.round(shares * ((1 << bits) - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def ybr_of(rgb: Colours, bits: int = 8) -> Colours:
    """PS3.3 C.7.6.3.1.2, YBR_FULL."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    half = 1 << bits - 1
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    blueness = -0.168736 * red - 0.331264 * green + 0.5 * blue + half
    redness = 0.5 * red - 0.418688 * green - 0.081312 * blue + half
    samples = np.stack([luminance, blueness, redness], axis=-1)
    return np.round(samples).clip(0, (1 << bits) - 1).astype(rgb.dtype)


def read(content: bytes) -> Colours:
    return np.asarray(decode_image(content, Path("scan")), dtype=int)


def upper_eight(rgb: Colours, bits: int) -> Colours:
    """Of deep colours the upper 8 bits; shallow ones are spread over 0 to 255."""
    return rgb >> bits - 8 if bits >= 8 else np.floor(rgb / ((1 << bits) - 1) * 255 + 0.5)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, RLE, JPEG_LS, JPEG_2000, JPEG_LOSSLESS])
@pytest.mark.parametrize("bits", [(8, 8), (8, 5), (16, 12), (16, 16)])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_lossless(syntax: str, bits: tuple[int, int], photometric: str) -> None:
    allocated, stored = bits
    rgb = picture(stored)
    samples = rgb if photometric == "RGB" else ybr_of(rgb, stored)
    encoder = {JPEG_LS: jpeg_ls_frame, JPEG_2000: jpeg_2000, JPEG_LOSSLESS: jpeg_lossless}.get(syntax)
    for planar in PLANAR:
        if syntax in NATIVE:
            stored_as = np.moveaxis(samples, -1, 0) if planar == 1 else samples
            pixels: bytes | list[bytes] = native_bytes(np.ascontiguousarray(stored_as), syntax)
        else:
            pixels = [rle(samples) if encoder is None else encoder(samples, stored)]
        header = image_elements(
            samples,
            PhotometricInterpretation=photometric,
            PlanarConfiguration=planar,
            BitsAllocated=allocated,
            BitsStored=stored,
            HighBit=stored - 1,
        )
        tolerance = 0 if photometric == "RGB" else 2 * max(1, 255 // ((1 << stored) - 1))
        np.testing.assert_allclose(
            read(dicom_file(header, pixels, syntax)),
            upper_eight(rgb, stored),
            atol=tolerance,
            err_msg=f"{planar=}",
        )


@pytest.mark.parametrize("named", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"])
@pytest.mark.parametrize("planar", PLANAR)
def test_a_component_transformation_gives_rgb_whatever_the_header_says(
    named: str, planar: int | None
) -> None:
    header = image_elements(picture(), PhotometricInterpretation=named, PlanarConfiguration=planar)
    frame = jpeg_2000(picture(), 8, transformed=True)
    np.testing.assert_array_equal(read(dicom_file(header, [frame], JPEG_2000)), picture())


def test_uncompressed_pairs_of_pixels_share_their_colour() -> None:
    ybr = ybr_of(picture())
    pairs = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    shared = ybr.copy()
    shared[:, 1::2, 1:] = shared[:, ::2, 1:]
    luminance, blueness, redness = np.moveaxis(shared.astype(float) - [0, 128, 128], -1, 0)
    expected = [
        luminance + 1.402 * redness,
        luminance - 0.344136 * blueness - 0.714136 * redness,
        luminance + 1.772 * blueness,
    ]
    header = image_elements(picture(), PhotometricInterpretation="YBR_FULL_422")
    shown = read(dicom_file(header, np.ascontiguousarray(pairs).tobytes()))
    np.testing.assert_allclose(shown, np.stack(expected, axis=-1).clip(0, 255), atol=1)


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        # As many bytes as without subsampling: the header is from before decompression.
        ({"PhotometricInterpretation": "YBR_FULL_422"}, WIDTH),
        ({"PhotometricInterpretation": "YBR_FULL_422"}, WIDTH - 1),
        ({"PlanarConfiguration": 2}, WIDTH),
    ],
)
def test_uncompressed_colours_that_cannot_be_so_are_refused(changes: dict[str, Any], width: int) -> None:
    samples = np.ascontiguousarray(picture()[:, :width])
    with pytest.raises(UnreadableImageError, match="unusual colours"):
        read(dicom_file(image_elements(samples, **changes), samples.tobytes()))


def jpeg(samples: str, marker: str, identifiers: bytes, subsampled: bool) -> bytes:
    """A JPEG of the picture as "RGB" or "YBR" samples, with the marker and identifiers that are wanted."""
    content = io.BytesIO()
    image = Image.fromarray(picture())
    if samples == "RGB":
        image.save(content, "JPEG", quality=100, keep_rgb=True)
    else:
        image.save(content, "JPEG", quality=100, subsampling="4:2:0" if subsampled else "4:4:4")
    stream = content.getvalue()
    kept, at = [], 2
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if not 0xE0 <= stream[at + 1] <= 0xEF:
            kept.append(bytearray(stream[at:end]))
        at = end
    scan = bytearray(stream[at:])
    frame = next(segment for segment in kept if segment[1] == 0xC0)
    for number, identifier in enumerate(identifiers):
        frame[10 + 3 * number] = scan[5 + 2 * number] = identifier
    markers = {
        "none": b"",
        "JFIF": b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
        "Adobe": b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + (b"\0" if samples == "RGB" else b"\1"),
    }
    return b"\xff\xd8" + markers[marker] + b"".join(map(bytes, kept)) + bytes(scan)


# Samples, marker, identifiers, subsampled; and whether the stream itself tells its colours.
STREAMS = [
    ("YBR", "none", b"\1\2\3", False, True),
    ("YBR", "none", b"\1\2\3", True, True),
    ("YBR", "none", b"\0\1\2", True, True),
    ("YBR", "none", b"\0\1\2", False, False),
    ("YBR", "JFIF", b"\1\2\3", False, True),
    ("YBR", "JFIF", b"\0\1\2", True, True),
    ("YBR", "Adobe", b"\0\1\2", False, True),
    ("YBR", "Adobe", b"\1\2\3", True, True),
    ("RGB", "none", b"RGB", False, True),
    ("RGB", "none", b"rgb", False, True),
    ("RGB", "Adobe", b"\1\2\3", False, True),
    ("RGB", "Adobe", b"\0\1\2", False, True),
    ("RGB", "none", b"\0\1\2", False, False),
]


@pytest.mark.parametrize(("samples", "marker", "identifiers", "subsampled", "told"), STREAMS)
def test_the_stream_tells_the_colours_of_a_jpeg(
    samples: str, marker: str, identifiers: bytes, subsampled: bool, told: bool
) -> None:
    stream = jpeg(samples, marker, identifiers, subsampled)
    for named, planar in product(["RGB", "YBR_FULL", "YBR_FULL_422"], PLANAR):
        header = image_elements(picture(), PhotometricInterpretation=named, PlanarConfiguration=planar)
        shown = read(dicom_file(header, [stream], JPEG))
        if told or named.startswith(samples):
            np.testing.assert_allclose(
                shown, picture(), atol=12 if subsampled else 4, err_msg=f"{named} {planar}"
            )
        else:
            assert np.abs(shown - picture()).max() > 50, "the header decides where the stream does not tell"


def test_identifiers_of_a_lossless_stream_tell_nothing() -> None:
    """Lossless writers number the components of RGB from 1."""
    header = image_elements(picture(), PhotometricInterpretation="RGB")
    content = dicom_file(header, [jpeg_lossless(picture(), 8)], JPEG_LOSSLESS)
    np.testing.assert_array_equal(read(content), picture())


@pytest.mark.parametrize("named", ["YBR_PARTIAL_420", "YBR_PARTIAL_422", "CMYK", "HSV", "MONOCHROME2", "XYZ"])
@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG, RLE])
def test_other_colours_are_refused(named: str, syntax: str) -> None:
    pixels = {
        EXPLICIT: picture().tobytes(),
        JPEG: [jpeg("YBR", "JFIF", b"\1\2\3", False)],
        RLE: [rle(picture())],
    }
    header = image_elements(picture(), PhotometricInterpretation=named)
    with pytest.raises(UnreadableImageError, match="unusual colours"):
        read(dicom_file(header, pixels[syntax], syntax))
