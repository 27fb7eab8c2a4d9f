"""One frame of a DICOM file as stored values: decompressed if need be, and never more than the header says.

A compressed frame has a size in its own header too, and that one decides how much memory a decoder takes. So
it is read and compared before any decoder sees the frame. What the frame itself says of its depth and colours
goes before the file's header (`codestreams`), and PlanarConfiguration, which is left from before compression,
means nothing (PS3.5 8.2.1).
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder

from fedmedclip.edge_client.images.readers import codestreams
from fedmedclip.edge_client.images.readers.codestreams import Codestream
from fedmedclip.edge_client.images.readers.dicom_bounds import check_length, require_native_bytes
from fedmedclip.edge_client.images.readers.dicom_file import DicomFile
from fedmedclip.edge_client.images.readers.dicom_syntaxes import NATIVE, decoder_for
from fedmedclip.edge_client.images.readers.dicom_values import number, required_number, text
from fedmedclip.edge_client.images.readers.luminance import rgb_of_ybr
from fedmedclip.edge_client.images.readers.refusal import MAX_PIXELS, RefusedFileError

_SAMPLE_BITS = (1, 8, 16, 32, 64)


def read_frame(source: DicomFile, index: int) -> tuple[npt.NDArray[Any], int]:
    """Return frame `index` (from 0) and the bits of its samples; colours are RGB, however they were stored.

    The array is (height, width) or (height, width, samples), integers or floats. Raises RefusedFileError;
    other exceptions are the decoders', about damage, and must not be shown.
    """
    if not text(source.header, "PhotometricInterpretation"):
        raise RefusedFileError("no photometric interpretation")
    allocated = required_number(source.header, "BitsAllocated", "bits allocated")
    if allocated not in _SAMPLE_BITS:
        raise RefusedFileError("unusual bits")
    if source.pixel_keyword != "PixelData":
        return _native(source, index, allocated, allocated), allocated
    stored = required_number(source.header, "BitsStored", "bits stored")
    if not 1 <= stored <= allocated:
        raise RefusedFileError("unusual bits")
    if source.transfer_syntax in NATIVE:
        array = _within_bits(_native(source, index, allocated, stored), source, stored, allocated)
        return _in_rgb(array, source, stored, None), stored
    frame = _encapsulated_frame(source, index)
    if source.transfer_syntax == uid.RLELossless:
        array = _within_bits(_decoded(frame, source, allocated, stored), source, stored, allocated)
        return _in_rgb(array, source, stored, None), stored
    return _of_codestream(frame, source, stored)


def _native(source: DicomFile, index: int, allocated: int, stored: int) -> npt.NDArray[Any]:
    require_native_bytes(source, _is_subsampled(source))
    planar = number(source.header, "PlanarConfiguration")
    if planar not in (0, 1):
        raise RefusedFileError("unusual colours")
    options = _options(source, allocated, stored) | {
        "number_of_frames": source.frames,
        "planar_configuration": planar,
        "pixel_vr": source.pixel_vr,
    }
    decoder = get_decoder(source.transfer_syntax)
    return decoder.as_array(source.file, index=index, raw=True, **options)[0]


def _encapsulated_frame(source: DicomFile, index: int) -> bytes:
    if source.pixel_bytes is not None:
        raise RefusedFileError("corrupt")
    offsets, lengths = (
        source.header.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    )
    frame = get_frame(
        source.file,
        index,
        number_of_frames=source.frames,
        extended_offsets=(offsets, lengths) if offsets and lengths else None,
    )
    # Some writers put a whole JP2 file there, against the standard (PS3.5 A.4.4). pydicom would walk through
    # its boxes, and one without length never ends that walk.
    frame = codestreams.codestream_of_jp2(frame) or b""
    check_length(frame, source)
    return frame


def _of_codestream(frame: bytes, source: DicomFile, stored: int) -> tuple[npt.NDArray[Any], int]:
    """Decode a JPEG, JPEG-LS or JPEG 2000 frame to the depth that it has itself."""
    stream = codestreams.read_jpeg_2000(frame) or codestreams.read_jpeg(frame)
    samples = number(source.header, "SamplesPerPixel", 1)
    if stream is None or stream.size != (*source.size, samples) or stream.precision > 32:
        raise RefusedFileError("corrupt")
    decoder = decoder_for(source.transfer_syntax, stream.precision)
    if decoder == "pillow":
        if stored > 8:
            # A window or slope of the header is for the deeper values that are lost.
            raise RefusedFileError("a frame of 8 bits with a header for more")
        return _jpeg_of_eight_bits(frame, source, stream), 8
    cell = next(bits for bits in (8, 16, 32) if bits >= stream.precision)
    if source.size[0] * source.size[1] * samples * cell // 8 > 8 * MAX_PIXELS:
        raise RefusedFileError("too many pixels")
    array = _decoded(frame, source, cell, stream.precision, decoder)
    bits = stored if _holds_cells(source, stored, stream.precision) else stream.precision
    array = _within_bits(array, source, bits, stream.precision)
    return _in_rgb(array, source, bits, stream), bits


def _holds_cells(source: DicomFile, stored: int, precision: int) -> bool:
    """Whether a stream has whole pixel cells as its samples, with the values somewhere in them.

    By the standard samples are the values alone; then the stream knows their depth better than the header.
    """
    allocated = required_number(source.header, "BitsAllocated", "bits allocated")
    if not stored < precision <= allocated:
        return False
    # JPEG writers take the cell as it is, with overlays in its upper bits.
    of_jpeg = source.transfer_syntax in (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
    return of_jpeg or _high_bit(source, stored, precision) >= stored


def _jpeg_of_eight_bits(frame: bytes, source: DicomFile, stream: Codestream) -> npt.NDArray[Any]:
    """Decode by Pillow, which turns to RGB what it is told is YBR."""
    if stream.size[2] == 1:
        colours = None
    elif stream.size[2] != 3 or (colours := _colours(source, stream)) is None:
        raise RefusedFileError("unusual colours")
    with Image.open(io.BytesIO(codestreams.bare_jpeg(frame, colours)), formats=["JPEG"]) as image:
        if image.size != source.size:
            raise RefusedFileError("corrupt")
        array = np.array(image)
    signed = number(source.header, "PixelRepresentation") == 1
    return array.view(np.int8) if signed else array


def _decoded(
    frame: bytes, source: DicomFile, allocated: int, stored: int, decoder: str = "pydicom"
) -> npt.NDArray[Any]:
    options = _options(source, allocated, stored)
    options |= {"number_of_frames": 1, "planar_configuration": 0, "pixel_vr": "OB"}
    return get_decoder(source.transfer_syntax).as_array(
        encapsulate([frame], has_bot=False), index=0, raw=True, decoding_plugin=decoder, **options
    )[0]


def _options(source: DicomFile, allocated: int, stored: int) -> dict[str, Any]:
    """What pydicom's decoders have to be told, so that colours and unused bits are left to this module."""
    width, height = source.size
    options = {
        "rows": height,
        "columns": width,
        "samples_per_pixel": number(source.header, "SamplesPerPixel", 1),
        "bits_allocated": allocated,
        "bits_stored": stored,
        "pixel_keyword": source.pixel_keyword,
        "photometric_interpretation": "YBR_FULL_422" if _is_subsampled(source) else "MONOCHROME2",
        "transfer_syntax_uid": source.transfer_syntax,
        "correct_unused_bits": False,
    }
    if source.pixel_keyword == "PixelData":
        signed = required_number(source.header, "PixelRepresentation", "pixel representation")
        if signed not in (0, 1):
            raise RefusedFileError("no pixel representation")
        options["pixel_representation"] = signed
    return options


def _is_subsampled(source: DicomFile) -> bool:
    return (
        source.transfer_syntax in NATIVE
        and text(source.header, "PhotometricInterpretation") == "YBR_FULL_422"
        and number(source.header, "SamplesPerPixel", 1) == 3
    )


def _high_bit(source: DicomFile, stored: int, cell: int) -> int:
    """The position of a value's highest bit; just above its bits where the header says what cannot be."""
    high_bit = number(source.header, "HighBit", stored - 1)
    return high_bit if stored - 1 <= high_bit < cell else stored - 1


def _within_bits(array: npt.NDArray[Any], source: DicomFile, stored: int, cell: int) -> npt.NDArray[Any]:
    """Take the stored value out of each pixel cell (PS3.5 8.1.1): above and below it may be anything."""
    width = 8 * array.dtype.itemsize
    above = width - 1 - _high_bit(source, stored, cell)
    np.left_shift(array, above, out=array)
    np.right_shift(array, width - stored, out=array)
    return array


def _colours(source: DicomFile, stream: Codestream | None) -> codestreams.Colours | None:
    """Whether three samples are RGB or YBR; the stream decides where it can know. None: they are neither."""
    transformed = source.transfer_syntax in uid.JPEG2000TransferSyntaxes
    match text(source.header, "PhotometricInterpretation"):
        case "RGB":
            named: codestreams.Colours = "RGB"
        case "YBR_FULL" | "YBR_FULL_422":
            named = "YBR"
        # What the stream's component transformation takes and gives back.
        case "YBR_RCT" | "YBR_ICT" if transformed:
            named = "RGB"
        case _:
            return None
    return stream.colours or named if stream is not None else named


def _in_rgb(
    array: npt.NDArray[Any], source: DicomFile, bits: int, stream: Codestream | None
) -> npt.NDArray[Any]:
    if array.ndim == 2:
        return array
    colours = _colours(source, stream)
    if colours is None or array.dtype.kind != "u":
        raise RefusedFileError("unusual colours")
    return rgb_of_ybr(array, bits) if colours == "YBR" else array
