"""Slices of NIfTI volumes (`.nii`, `.nii.gz`), read from the header alone to the slice alone.

The header is that of https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h. A slice is a plane of the
third axis as stored, with the first axis to the right and the second upwards, as numpy users show it
(`rot90(data[:, :, k])`); the orientation in the header is not applied.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedmedclip.edge_client.images.readers.grey_values import (
    Floats,
    chosen_window,
    grey_image,
    linear_window,
    to_eight_bits,
)
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError, check_size
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.images.readers.stored_form import StoredForm

_HEADER_BYTES = 348
# Behind the header and the mark of an extension, which may follow (nifti1.h: NIFTI-1 file storage).
_FIRST_VALUE = 352
# Unpacking to the slice takes time, though no memory; this is some seconds of it.
_MAX_UNPACKED_BYTES = 2 * 1024 * 1024 * 1024
_SKIPPED_AT_ONCE = 1 << 20
# NIfTI's codes for types of values; complex and 128-bit values have no grey.
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
    128: "rgb",
}  # fmt: skip


@dataclass(frozen=True)
class _Header:
    """`shape` is (width, height, slices), `type` a numpy type or "rgb", `display` the values shown."""

    shape: tuple[int, int, int]
    type: str
    order: str
    offset: int
    slope: float
    intercept: float
    display: tuple[float, float] | None


def is_nifti(head: bytes) -> bool:
    """Whether a file begins like a NIfTI-1 volume, or like gzip."""
    return head[:2] == b"\x1f\x8b" or head[344:348] == b"n+1\0"


def read_nifti(file: BinaryIO, frame: int | None, settings: ReaderSettings) -> Image.Image:
    """Read one slice as RGB; `frame` counts from 1; None: as the settings say. Raises RefusedFileError."""
    try:
        with _unpacked(file) as volume:
            header = _read_header(volume)
            count = header.shape[2]
            if frame is None:
                frame = 1 if settings.frames == "first" else (count + 1) // 2
            if not 1 <= frame <= count:
                raise RefusedFileError("no such frame")
            plane = _read_plane(volume, header, frame - 1)
    except (EOFError, zlib.error, OSError) as error:
        raise RefusedFileError("truncated" if isinstance(error, EOFError) else "corrupt") from error
    if header.type == "rgb":
        return Image.fromarray(plane)

    def meaning(stored: Floats) -> Floats:
        return stored * header.slope + header.intercept

    window = chosen_window(settings)
    if window is None and header.display is not None and settings.window != "range":
        lowest, highest = header.display
        window = linear_window((lowest + highest) / 2, highest - lowest)
    with np.errstate(over="ignore", invalid="ignore"):
        return grey_image(to_eight_bits(plane, meaning=meaning, window=window))


def nifti_frames(file: BinaryIO) -> int:
    """Return the number of slices; 1 when that cannot be told."""
    try:
        with _unpacked(file) as volume:
            return _read_header(volume).shape[2]
    except (RefusedFileError, OSError, EOFError, zlib.error):
        # What is wrong with the file is said when it is read.
        return 1


def nifti_form(file: BinaryIO) -> StoredForm:
    """Return how a volume stores its slices. Raises RefusedFileError, and what unpacking damage raises."""
    with _unpacked(file) as volume:
        header = _read_header(volume)
    if header.type == "rgb":
        return StoredForm("NIfTI", 8, "colour", header.shape[:2])
    return StoredForm("NIfTI", 8 * np.dtype(header.type).itemsize, "grey", header.shape[:2])


@contextmanager
def _unpacked(file: BinaryIO) -> Iterator[IO[bytes]]:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if packed:
        with gzip.GzipFile(fileobj=file) as volume:
            yield cast(IO[bytes], volume)
    else:
        yield file


def _read_header(volume: IO[bytes]) -> _Header:
    raw = volume.read(_HEADER_BYTES)
    if len(raw) < _HEADER_BYTES or raw[344:348] != b"n+1\0":
        raise RefusedFileError("not an image")
    order = "<" if struct.unpack_from("<i", raw)[0] == _HEADER_BYTES else ">"
    dimensions = struct.unpack_from(f"{order}8h", raw, 40)
    code, offset, slope, intercept, highest, lowest = (
        *struct.unpack_from(f"{order}h", raw, 70),
        *struct.unpack_from(f"{order}3f", raw, 108),
        *struct.unpack_from(f"{order}2f", raw, 124),
    )
    rank = dimensions[0]
    if not 2 <= rank <= 7 or dimensions[1] < 1 or min(dimensions[2 : rank + 1]) < 0:
        raise RefusedFileError("corrupt")
    # As nifti1_io.c has it: a dimension of 0 past the first is one of 1.
    width, height, slices, *others = (max(1, size) for size in (*dimensions[1 : rank + 1], 1))
    if max(others, default=1) > 1:
        raise RefusedFileError("more than three dimensions")
    if code not in _TYPES:
        raise RefusedFileError("values without grey")
    # An offset of 0 is what is written for a header alone; the values of one file begin behind it.
    offset = offset or _FIRST_VALUE
    if not _HEADER_BYTES <= offset < 1 << 24:
        raise RefusedFileError("corrupt")
    check_size(width, height)
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        slope, intercept = 1.0, 0.0
    display = (lowest, highest) if np.isfinite([lowest, highest]).all() and lowest < highest else None
    return _Header((width, height, slices), _TYPES[code], order, int(offset), slope, intercept, display)


def _read_plane(volume: IO[bytes], header: _Header, index: int) -> npt.NDArray[Any]:
    """Return a slice (height, width), or uint8 (height, width, 3), with the first row on top."""
    width, height, _ = header.shape
    dtype = np.dtype("u1" if header.type == "rgb" else header.order + header.type)
    samples = 3 if header.type == "rgb" else 1
    size = width * height * samples * dtype.itemsize
    start = header.offset + index * size
    if start + size > _MAX_UNPACKED_BYTES and isinstance(volume, gzip.GzipFile):
        raise RefusedFileError("file too large")
    _skip_to(volume, start)
    content = volume.read(size)
    if len(content) < size:
        raise RefusedFileError("truncated")
    plane = np.frombuffer(content, dtype).reshape(height, width, *([3] if samples == 3 else []))
    return np.ascontiguousarray(plane[::-1])


def _skip_to(volume: IO[bytes], start: int) -> None:
    if not isinstance(volume, gzip.GzipFile):
        volume.seek(start)
        return
    while (left := start - volume.tell()) > 0:
        if not volume.read(min(left, _SKIPPED_AT_ONCE)):
            raise RefusedFileError("truncated")
