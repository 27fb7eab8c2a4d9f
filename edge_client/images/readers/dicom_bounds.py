"""Whether the bytes of a DICOM frame can be the pixels that its header claims, before memory is spent."""

from itertools import pairwise

import numpy as np
from pydicom import uid

from fedmedclip.edge_client.images.readers.dicom_file import DicomFile
from fedmedclip.edge_client.images.readers.dicom_values import number
from fedmedclip.edge_client.images.readers.refusal import MAX_PIXELS, RefusedFileError

# No codec makes a frame much larger than it is; room for tables and padding.
_LARGEST_EXPANSION, _TABLES = 2, 1 << 20
_END_OF_IMAGE = b"\xff\xd9"
# A run of PackBits is at most 64 times as long as its bytes.
_RLE_EXPANSION = 64
_MAX_RLE_BYTES = 512 * 1024 * 1024


def require_native_bytes(source: DicomFile, subsampled: bool) -> None:
    """Tell a truncated file from a damaged one, before its frame is allocated. Raises RefusedFileError.

    `subsampled` says that two pixels share their colour differences (YBR_FULL_422).
    """
    width, height = source.size
    bits = (
        width * height * number(source.header, "SamplesPerPixel", 1) * number(source.header, "BitsAllocated")
    )
    needed = (bits * source.frames + 7) // 8
    if bits > 8 * 8 * MAX_PIXELS:
        raise RefusedFileError("too many pixels")
    if subsampled:
        if width % 2 or (source.pixel_bytes or 0) >= needed:
            # Left from before decompression: three bytes for each pixel, of nobody knows which colours.
            raise RefusedFileError("unusual colours")
        needed = needed * 2 // 3
    start = source.file.tell()
    available = source.file.seek(0, 2) - start
    source.file.seek(start)
    if min(available, source.pixel_bytes or 0) < needed:
        raise RefusedFileError("truncated")


def check_length(frame: bytes, source: DicomFile) -> None:
    """Compare a compressed frame's length with what its pixels take. Raises RefusedFileError."""
    width, height = source.size
    samples = number(source.header, "SamplesPerPixel", 1)
    raw_bytes = width * height * samples * max(1, number(source.header, "BitsAllocated") // 8)
    if raw_bytes > 8 * MAX_PIXELS:
        raise RefusedFileError("too many pixels")
    if not frame:
        raise RefusedFileError("truncated")
    if len(frame) > _LARGEST_EXPANSION * raw_bytes + _TABLES:
        raise RefusedFileError("corrupt")
    if (
        source.transfer_syntax == uid.RLELossless
        and len(frame) * _RLE_EXPANSION > _MAX_RLE_BYTES
        and _unpacked_size(frame) > raw_bytes + _TABLES
    ):
        raise RefusedFileError("corrupt")
    if source.transfer_syntax in uid.JPEGLSTransferSyntaxes and not frame.rstrip(b"\0").endswith(
        _END_OF_IMAGE
    ):
        # CharLS, as pyjpegls 1.5 calls it, looks for the end beyond the end: for ever, at times.
        raise RefusedFileError("truncated")


def _unpacked_size(frame: bytes) -> int:
    """The sum of all runs in the segments of an RLE frame (PS3.5 Annex G)."""
    segments = np.frombuffer(frame[:64].ljust(64, b"\0"), "<u4")
    starts = [*segments[1 : 1 + min(int(segments[0]), 15)].tolist(), len(frame)]
    total = 0
    for start, end in pairwise(starts):
        at = start
        while at < end - 1:
            control = frame[at]
            if control < 128:
                total, at = total + control + 1, at + control + 2
            else:
                total, at = total + (257 - control if control > 128 else 0), at + (2 if control > 128 else 1)
            if total > 8 * MAX_PIXELS:
                return total
    return total
