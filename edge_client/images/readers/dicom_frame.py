"""One frame of a DICOM file as stored values: decompressed if need be, and never more than the header says.

A compressed frame has a size in its own header too, and that one decides how much memory a decoder takes. So
it is read and compared before any decoder sees the frame.
"""

import struct
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options

from fedmedclip.edge_client.images.readers.dicom_file import DicomFile, number
from fedmedclip.edge_client.images.readers.refusal import MAX_PIXELS, RefusedFileError

# One decoder for each syntax, so that a frame gives the same pixels whatever else is installed. Those of
# pylibjpeg-libjpeg, which is under the GPL, come last: for what nothing else reads.
_DECODERS: dict[str, tuple[str, ...]] = {
    # Python, but quick enough; pylibjpeg-rle is quicker and panics, past every `except Exception`, on damage.
    uid.RLELossless: ("pydicom",),
    uid.JPEGBaseline8Bit: ("pillow",),
    uid.JPEGExtended12Bit: ("pillow", "pylibjpeg"),
    uid.JPEGLossless: ("pylibjpeg",),
    uid.JPEGLosslessSV1: ("pylibjpeg",),
    uid.JPEGLSLossless: ("pyjpegls",),
    uid.JPEGLSNearLossless: ("pyjpegls",),
    uid.JPEG2000Lossless: ("pylibjpeg",),
    uid.JPEG2000: ("pylibjpeg",),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
}
_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
           uid.DeflatedExplicitVRLittleEndian)  # fmt: skip
# No codec makes a frame much larger than it is; room for tables and padding.
_LARGEST_EXPANSION, _TABLES = 2, 1 << 20
_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\0\0\0\x0cjP  "
_LONGEST_JP2_HEADER = 1 << 16
_END_OF_IMAGE = b"\xff\xd9"
# A run of PackBits is at most 64 times as long as its bytes.
_RLE_EXPANSION = 64
_MAX_RLE_BYTES = 512 * 1024 * 1024


def read_frame(source: DicomFile, index: int) -> tuple[npt.NDArray[Any], str]:
    """Return frame `index` (from 0) and its photometric interpretation, YBR already made RGB.

    The array is (height, width) or (height, width, samples), integers or floats. Raises RefusedFileError;
    other exceptions are the decoders', about damage, and must not be shown.
    """
    options = as_pixel_options(source.header)
    options |= {
        "transfer_syntax_uid": source.transfer_syntax,
        "pixel_keyword": source.pixel_keyword,
        "pixel_vr": source.pixel_vr,
    }
    if source.transfer_syntax in _NATIVE:
        _require_native_bytes(source)
        array, properties = get_decoder(source.transfer_syntax).as_array(source.file, index=index, **options)
        return array, str(properties["photometric_interpretation"])
    if source.pixel_keyword != "PixelData" or source.pixel_bytes is not None:
        raise RefusedFileError("corrupt")
    plugin = _decoder_for(source.transfer_syntax, source)
    frame = get_frame(
        source.file,
        index,
        number_of_frames=source.frames,
        extended_offsets=options.pop("extended_offsets", None),
    )
    frame = _without_jp2_boxes(frame)
    _check_compressed(frame, source)
    options |= {"number_of_frames": 1, "pixel_vr": "OB"}
    array, properties = get_decoder(source.transfer_syntax).as_array(
        encapsulate([frame], has_bot=False), index=0, decoding_plugin=plugin, **options
    )
    return array, str(properties["photometric_interpretation"])


def _require_native_bytes(source: DicomFile) -> None:
    """Tell a truncated file from a damaged one, before its frame is allocated."""
    width, height = source.size
    bits = (
        width * height * number(source.header, "SamplesPerPixel", 1) * number(source.header, "BitsAllocated")
    )
    needed = (bits * source.frames + 7) // 8
    if number(source.header, "BitsAllocated") > 64 or bits > 8 * 8 * MAX_PIXELS:
        raise RefusedFileError("too many pixels")
    if str(source.header.get("PhotometricInterpretation")) == "YBR_FULL_422":
        needed = needed * 2 // 3
    start = source.file.tell()
    available = source.file.seek(0, 2) - start
    source.file.seek(start)
    if min(available, source.pixel_bytes or 0) < needed:
        raise RefusedFileError("truncated")


def _decoder_for(syntax: uid.UID, source: DicomFile) -> str:
    if syntax not in _DECODERS:
        raise RefusedFileError("a DICOM compression that is not supported")
    available = get_decoder(syntax).available_plugins
    twelve_bits = syntax == uid.JPEGExtended12Bit and number(source.header, "BitsStored") != 8
    for plugin in _DECODERS[syntax]:
        if plugin in available and not (twelve_bits and plugin == "pillow"):
            return plugin
    extra = "dicom-gpl" if syntax in uid.JPEGTransferSyntaxes else "dicom"
    raise RefusedFileError(f"{uid.UID(syntax).name}: pip install 'fedmedclip-edge[{extra}]'")


def _check_compressed(frame: bytes, source: DicomFile) -> None:
    """Compare a compressed frame's own size with the header's. Raises RefusedFileError when they differ."""
    width, height = source.size
    samples = number(source.header, "SamplesPerPixel", 1)
    raw_bytes = width * height * samples * max(1, number(source.header, "BitsAllocated") // 8)
    if raw_bytes > 8 * MAX_PIXELS:
        raise RefusedFileError("too many pixels")
    if not frame:
        raise RefusedFileError("truncated")
    if len(frame) > _LARGEST_EXPANSION * raw_bytes + _TABLES:
        raise RefusedFileError("corrupt")
    if source.transfer_syntax == uid.RLELossless:
        if len(frame) * _RLE_EXPANSION > _MAX_RLE_BYTES and _unpacked_size(frame) > raw_bytes + _TABLES:
            raise RefusedFileError("corrupt")
        return
    if source.transfer_syntax in uid.JPEGLSTransferSyntaxes and not frame.rstrip(b"\0").endswith(
        _END_OF_IMAGE
    ):
        # CharLS, as pyjpegls 1.5 calls it, looks for the end beyond the end: for ever, at times.
        raise RefusedFileError("truncated")
    found = jpeg_2000_size(frame) if frame.startswith(_CODESTREAM) else jpeg_size(frame)
    if found != (width, height, samples):
        raise RefusedFileError("corrupt")


def _without_jp2_boxes(frame: bytes) -> bytes:
    """Return the codestream where a writer has put a whole JP2 file, against the standard (PS3.5 A.4.4).

    pydicom would walk through its boxes, and one without length never ends that walk.
    """
    if not frame.startswith(_JP2_SIGNATURE):
        return frame
    start = frame[:_LONGEST_JP2_HEADER].find(_CODESTREAM)
    if start < 0:
        raise RefusedFileError("corrupt")
    return frame[start:]


def jpeg_size(stream: bytes) -> tuple[int, int, int] | None:
    """(width, height, components) of a JPEG or JPEG-LS stream, by its frame header (ISO 10918-1 B.2.2)."""
    at = 2
    if stream[:2] != b"\xff\xd8":
        return None
    while at + 9 < len(stream):
        if stream[at] != 0xFF:
            return None
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width, components = struct.unpack_from(">HHB", stream, at + 5)
            return width, height, components
        elif marker in (0x01, 0xDA) or 0xD0 <= marker <= 0xD9:
            return None
        else:
            at += 2 + cast(int, struct.unpack_from(">H", stream, at + 2)[0])
    return None


def jpeg_2000_size(stream: bytes) -> tuple[int, int, int] | None:
    """(width, height, components) of a JPEG 2000 codestream, from its SIZ segment (ISO/IEC 15444-1 A.5.1)."""
    if len(stream) < 42:
        return None
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6L", stream, 8)
    components = struct.unpack_from(">H", stream, 40)[0]
    # A decoder keeps something for each tile.
    if width <= left or height <= top or min(tile_width, tile_height) < 16 or components > 4:
        return None
    return width - left, height - top, components


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
