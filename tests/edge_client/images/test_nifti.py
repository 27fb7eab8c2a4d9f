"""Slices of NIfTI volumes, plain and packed, whatever their types."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmedclip.edge_client.images.opening import UnreadableImageError, decode_image, frames_of, read_image
from fedmedclip.edge_client.images.readers.settings import ReaderSettings

VOLUME = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)  # slices, rows, columns


def nifti(
    volume: np.ndarray,
    code: int = 4,
    order: str = "<",
    slope: float = 1.0,
    shown: tuple[float, float] = (0, 0),
    dimensions: tuple[int, ...] | None = None,
    offset: float = 352,
) -> bytes:
    """A NIfTI-1 file of slices (slices, rows, columns); `dimensions` are the eight of the header."""
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    dimensions = dimensions or (3, *volume.shape[::-1], 1, 1, 1, 1)
    struct.pack_into(f"{order}8h", header, 40, *dimensions)
    struct.pack_into(f"{order}2h", header, 70, code, 8 * volume.dtype.itemsize)
    struct.pack_into(f"{order}3f", header, 108, offset, slope, 0)
    struct.pack_into(f"{order}2f", header, 124, shown[1], shown[0])
    header[344:348] = b"n+1\0"
    return bytes(header) + volume.astype(volume.dtype.newbyteorder(order)).tobytes()


def shown(content: bytes, settings: ReaderSettings | None = None, frame: int | None = None) -> np.ndarray:
    image = decode_image(content, Path("volume.nii"), settings or ReaderSettings(), frame)
    return np.asarray(image)[..., 0]


def by_range(plane: np.ndarray) -> np.ndarray:
    return np.floor((plane - plane.min()) / (plane.max() - plane.min()) * 255 + 0.5)[::-1]


TYPES = {
    2: "u1",
    256: "i1",
    512: "u2",
    4: "i2",
    768: "u4",
    8: "i4",
    1280: "u8",
    1024: "i8",
    16: "f4",
    64: "f8",
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("code", "dtype"), TYPES.items())
def test_each_type_at_its_borders(order: str, code: int, dtype: str) -> None:
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(np.float16)
    values = [limits.min, 0, 1, limits.max // 2, limits.max - 1, limits.max]
    plane = np.array(values, kind).reshape(1, 2, 3)
    shares = (plane[0].astype(np.longdouble) - limits.min) / (int(limits.max) - int(limits.min))
    # Of 64 bits floats hold 53.
    expected = np.floor(shares * 255 + 0.5)[::-1]
    np.testing.assert_allclose(shown(nifti(plane, code, order)), expected, atol=int(kind.itemsize == 8))


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 0},
        {"dimensions": (4, 5, 4, 3, 0, 0, 0, 0)},
        {"dimensions": (7, 5, 4, 3, 0, 1, 0, 1)},
        {"dimensions": (3, 5, 4, 3, 0, -1, 0, 9)},
        {"offset": 0, "dimensions": (5, 5, 4, 3, 1, 0, 0, 0)},
    ],
)
def test_headers_as_lenient_writers_leave_them(changes: dict[str, Any]) -> None:
    content = nifti(VOLUME, **changes)
    for packed in (content, gzip.compress(content)):
        np.testing.assert_array_equal(shown(packed), by_range(VOLUME[1]))


def test_a_third_dimension_of_zero_is_one_slice() -> None:
    for dimensions in ((3, 5, 4, 0, 0, 0, 0, 0), (2, 5, 4, 0, 0, 0, 0, 0), (4, 5, 4, 0, 0, 0, 0, 0)):
        np.testing.assert_array_equal(shown(nifti(VOLUME[:1], dimensions=dimensions)), by_range(VOLUME[0]))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("code", "dtype"), [(2, np.uint8), (4, np.int16), (16, np.float32), (64, np.float64)]
)
def test_reads_the_middle_slice_of_any_type(order: str, code: int, dtype: type) -> None:
    content = nifti(VOLUME.astype(dtype), code, order)
    for packed in (content, gzip.compress(content)):
        np.testing.assert_array_equal(shown(packed), by_range(VOLUME[1]))
    np.testing.assert_array_equal(shown(content, ReaderSettings("first")), by_range(VOLUME[0]))
    np.testing.assert_array_equal(shown(content, frame=3), by_range(VOLUME[2]))


def test_slope_and_windows() -> None:
    content = nifti(VOLUME, slope=2.0, shown=(40, 72))
    expected = np.floor(np.clip((VOLUME[1] * 2.0 - 40) / 32, 0, 1) * 255 + 0.5)[::-1]
    np.testing.assert_array_equal(shown(content), expected)
    np.testing.assert_array_equal(shown(content, ReaderSettings(window=(56.0, 32.0))), expected)
    np.testing.assert_array_equal(shown(content, ReaderSettings(window="range")), by_range(VOLUME[1]))


def test_slices_have_addresses(tmp_path: Path) -> None:
    file = tmp_path / "head.nii.gz"
    file.write_bytes(gzip.compress(nifti(VOLUME)))
    addresses = frames_of(file, ReaderSettings("all"))
    assert [address.name for address in addresses] == [f"head.nii.gz#frame={number}" for number in (1, 2, 3)]
    np.testing.assert_array_equal(np.asarray(read_image(addresses[0]))[..., 0], by_range(VOLUME[0]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (nifti(VOLUME)[:-30], "truncated"),
        (gzip.compress(nifti(VOLUME))[:-30], "truncated"),
        (gzip.compress(b"no volume"), "not an image"),
        (nifti(VOLUME, 32), "values without grey"),
        (nifti(np.zeros((1, 100, 1), np.int16)), "too narrow"),
        (nifti(VOLUME, offset=40), "corrupt"),
        (nifti(VOLUME, offset=np.nan), "corrupt"),
        (nifti(VOLUME, dimensions=(3, 0, 4, 3, 1, 1, 1, 1)), "corrupt"),
        (nifti(VOLUME, dimensions=(3, 5, -4, 3, 1, 1, 1, 1)), "corrupt"),
        (nifti(VOLUME, dimensions=(4, 5, 4, 1, 3, 1, 1, 1)), "more than three dimensions"),
    ],
    # gzip writes the time: names made of the content would differ between the processes of one run.
    ids=[
        "cut",
        "cut and packed",
        "packed text",
        "complex values",
        "one row",
        "inside the header",
        "no offset",
        "no column",
        "negative",
        "four dimensions",
    ],
)
def test_refuses(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        shown(content, frame=3 if reason == "truncated" else None)
    assert caught.value.reason == reason
