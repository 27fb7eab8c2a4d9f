"""DICOM files written byte by byte, for headers and frames that a careful writer would refuse to write."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR, tag_for_keyword

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)

_NUMBERS = {"US": "H", "OW": "H", "SS": "h", "UL": "L", "FL": "f", "FD": "d"}
_LONG_LENGTHS = ("OB", "OW", "OF", "OD", "SQ", "UN", "UT", "UC", "OL", "OV")

# Text, numbers of a binary VR, bytes as they are, or items of a sequence; or one of these with its VR.
Value = Any


def dicom_file(
    elements: Mapping[str, Value],
    pixels: bytes | Sequence[bytes],
    syntax: str = EXPLICIT,
    pixel_keyword: str = "PixelData",
) -> bytes:
    """A file of these elements, by keyword; `pixels` are native bytes, or the compressed frames."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    implicit = syntax == IMPLICIT
    known = {key: value for key, value in elements.items() if value is not None}
    content = _data_set(known, order, implicit)
    if isinstance(pixels, bytes):
        vr = {"FloatPixelData": "OF", "DoubleFloatPixelData": "OD"}.get(pixel_keyword, "OW")
        content += _element(pixel_keyword, (vr, pixels), order, implicit)
    else:
        items = [b"", *(frame + b"\0" * (len(frame) % 2) for frame in pixels)]
        content += b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
        content += b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items)
        content += b"\xfe\xff\xdd\xe0\0\0\0\0"
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        content = packer.compress(content) + packer.flush()
    meta = _element("TransferSyntaxUID", syntax + "\0" * (len(syntax) % 2), "<", False)
    return b"\0" * 128 + b"DICM" + meta + content


def image_elements(pixels: npt.NDArray[Any], **changed: Value) -> dict[str, Value]:
    """The Image Pixel module of an array (height, width[, 3]); a value of None leaves an element out."""
    bits = 8 * pixels.dtype.itemsize
    elements: dict[str, Value] = {
        "SamplesPerPixel": 1 if pixels.ndim == 2 else pixels.shape[2],
        "PhotometricInterpretation": "MONOCHROME2" if pixels.ndim == 2 else "RGB",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        elements["PlanarConfiguration"] = 0
    return elements | changed


def native_bytes(cells: npt.NDArray[Any], syntax: str = EXPLICIT) -> bytes:
    """Pixel cells as they lie in a file; of 8-bit cells an even number."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    content = cells.astype(cells.dtype.newbyteorder(order)).tobytes()
    if syntax == BIG_ENDIAN and cells.dtype.itemsize == 1:
        # As OW: two bytes in each word, the first in its lower half.
        content = np.frombuffer(content, "<u2").astype(">u2").tobytes()
    return content


def _data_set(elements: Mapping[str, Value], order: str, implicit: bool) -> bytes:
    written = sorted(elements, key=lambda keyword: int(tag_for_keyword(keyword) or 0))
    return b"".join(_element(keyword, elements[keyword], order, implicit) for keyword in written)


def _element(keyword: str, value: Value, order: str, implicit: bool) -> bytes:
    tag = int(tag_for_keyword(keyword) or 0)
    vr = dictionary_VR(tag).split(" ")[0]
    if isinstance(value, tuple):
        vr, value = value
    if vr == "SQ":
        items = [_data_set(item, order, implicit) for item in value]
        content = b"".join(struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)
    elif isinstance(value, bytes):
        content = value
    elif isinstance(value, str):
        content = value.encode("latin-1")
    elif vr in _NUMBERS:
        values = value if isinstance(value, list) else [value]
        content = struct.pack(f"{order}{len(values)}{_NUMBERS[vr]}", *values)
    else:
        content = str(value).encode("ascii")
    content += (b"\0" if vr in _LONG_LENGTHS else b" ") * (len(content) % 2)
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack(f"{order}L", len(content)) + content
    if vr in _LONG_LENGTHS:
        return head + vr.encode() + b"\0\0" + struct.pack(f"{order}L", len(content)) + content
    return head + vr.encode() + struct.pack(f"{order}H", len(content)) + content
