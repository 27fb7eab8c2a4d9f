"""The part of a DICOM file that its pixels need: a few header elements, and where the pixel data begins.

Only the elements listed here are parsed for an image, so that names, numbers and dates of patients do not
even become Python objects; `dicom_patient` alone asks for identifiers, to hash them. pydicom is told to be
silent: its warnings and log lines may quote what a header says.
"""

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import pydicom.config
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from fedmedclip.edge_client.images.readers.dicom_syntaxes import check_transfer_syntax
from fedmedclip.edge_client.images.readers.dicom_values import number, numbers
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError, check_size

for _name in ("pydicom", "pylibjpeg", "openjpeg", "libjpeg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)
    logging.getLogger(_name).propagate = False
warnings.filterwarnings("ignore", module=r"pydicom|pylibjpeg|openjpeg|libjpeg|fedmedclip\..*\.dicom")
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_HEADER = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "FloatPixelPaddingValue", "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue", "DoubleFloatPixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "PixelPresentation", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)  # fmt: skip
_HEADER_TAGS = [tag for keyword in _HEADER if (tag := tag_for_keyword(keyword)) is not None]
_TRANSFER_SYNTAX = 0x00020010
_PIXEL_ELEMENTS = {
    0x7FE00008: "FloatPixelData",
    0x7FE00009: "DoubleFloatPixelData",
    0x7FE00010: "PixelData",
}
_UNDEFINED_LENGTH = 0xFFFFFFFF
# What all reads for one image may sum up to: twice the largest image that is accepted.
_MAX_READ_BYTES = 1 << 30
_MAX_INFLATED_BYTES = 512 * 1024 * 1024
# Where elements before the pixels alone are asked for: they begin a file.
_MAX_INFLATED_HEADER = 16 * 1024 * 1024


@dataclass(frozen=True)
class DicomFile:
    """`header` has the elements of this module's list; `file` is at the value of the element `pixel_keyword`.

    `pixel_bytes` is the length of that value, None for encapsulated (compressed) frames.
    """

    header: Dataset
    file: BinaryIO
    transfer_syntax: UID
    pixel_keyword: str
    pixel_vr: str
    pixel_bytes: int | None

    @property
    def little_endian(self) -> bool:
        """The order of bytes in tables and pixels."""
        return self.transfer_syntax != ExplicitVRBigEndian

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return number(self.header, "Columns"), number(self.header, "Rows")

    @property
    def frames(self) -> int:
        """The number of frames, at least 1."""
        return max(1, number(self.header, "NumberOfFrames", 1))


def open_dicom(file: BinaryIO) -> DicomFile:
    """Read the header of a DICOM file, up to its pixels.

    Raises RefusedFileError for a transfer syntax that is not read, without pixels, or with more than are
    accepted. Other exceptions are
    pydicom's, about damage; they may quote the header and must not be shown.
    """
    file, transfer_syntax = _open_data_set(file)
    check_transfer_syntax(transfer_syntax)
    header = _read_elements(file, transfer_syntax, _HEADER_TAGS, lambda tag: tag in _PIXEL_ELEMENTS)
    keyword, vr, length = _read_pixel_element(file, transfer_syntax)
    found = DicomFile(header, file, transfer_syntax, keyword, vr, length)
    check_size(*found.size)
    if np.isnan(numbers(header, "NumberOfFrames")).any():
        # Which of them would be shown nobody could tell.
        raise RefusedFileError("corrupt")
    if number(header, "SamplesPerPixel", 1) not in (1, 3):
        raise RefusedFileError("unusual colours")
    return found


def read_elements(file: BinaryIO, keywords: Sequence[str]) -> Dataset:
    """Read the named elements alone, and nothing behind the last of them.

    Raises RefusedFileError and pydicom's exceptions, as `open_dicom` does.
    """
    tags = [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]
    file, transfer_syntax = _open_data_set(file, whole=False)
    return _read_elements(file, transfer_syntax, tags, lambda tag: tag > max(tags))


def _open_data_set(file: BinaryIO, *, whole: bool = True) -> tuple[BinaryIO, UID]:
    """Return the file behind its preamble and meta information, inflated where need be, or its beginning."""
    file = cast(BinaryIO, _BoundedReader(file))
    transfer_syntax = _read_transfer_syntax(file)
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        file = _inflated(file) if whole else _beginning_inflated(file)
    return file, transfer_syntax


def _read_elements(
    file: BinaryIO, transfer_syntax: UID, tags: Sequence[int], is_behind: Callable[[int], bool]
) -> Dataset:
    return read_dataset(
        file,
        is_implicit_VR=transfer_syntax == ImplicitVRLittleEndian,
        is_little_endian=transfer_syntax != ExplicitVRBigEndian,
        stop_when=lambda tag, vr, length: is_behind(tag),
        specific_tags=list(tags),
    )


def _read_transfer_syntax(file: BinaryIO) -> UID:
    file.seek(128)
    if file.read(4) != b"DICM":
        file.seek(0)
    if file.read(2) == b"\x02\0":
        file.seek(-2, io.SEEK_CUR)
        meta = read_dataset(
            file,
            is_implicit_VR=False,
            is_little_endian=True,
            stop_when=lambda tag, vr, length: tag >> 16 != 2,
            specific_tags=[_TRANSFER_SYNTAX],
        )
        if syntax := meta.get("TransferSyntaxUID"):
            return UID(str(syntax).strip(" \0"))
    else:
        file.seek(-2, io.SEEK_CUR)
    return _guessed_transfer_syntax(file)


def _guessed_transfer_syntax(file: BinaryIO) -> UID:
    """Tell the encoding of a file without transfer syntax by its first element, as pydicom does."""
    start = file.read(6)
    file.seek(-len(start), io.SEEK_CUR)
    if len(start) < 6:
        raise RefusedFileError("no pixels")
    group = struct.unpack("<H", start[:2])[0]
    if not start[4:6].isalpha():
        return ImplicitVRLittleEndian
    return ExplicitVRBigEndian if group >= 1024 else ExplicitVRLittleEndian


def _read_pixel_element(file: BinaryIO, transfer_syntax: UID) -> tuple[str, str, int | None]:
    """Read the head of the pixel element: its keyword, value representation, and length if defined."""
    order = ">" if transfer_syntax == ExplicitVRBigEndian else "<"
    head = file.read(8)
    if len(head) < 8:
        raise RefusedFileError("no pixels")
    group, element = struct.unpack(f"{order}HH", head[:4])
    vr = "OW"
    # Some writers forget to be explicit here.
    if transfer_syntax == ImplicitVRLittleEndian or not head[4:6].isalpha():
        length = struct.unpack(f"{order}L", head[4:])[0]
    else:
        vr = head[4:6].decode("ascii", "replace")
        length = struct.unpack(f"{order}L", file.read(4))[0]
    keyword = _PIXEL_ELEMENTS.get(group << 16 | element)
    if keyword is None or length == 0:
        raise RefusedFileError("no pixels")
    return keyword, vr, None if length == _UNDEFINED_LENGTH else length


def _inflated(file: BinaryIO) -> BinaryIO:
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    content = decompressor.decompress(file.read(), _MAX_INFLATED_BYTES)
    if decompressor.unconsumed_tail:
        raise RefusedFileError("file too large")
    return io.BytesIO(content)


def _beginning_inflated(file: BinaryIO) -> BinaryIO:
    content = file.read(_MAX_INFLATED_HEADER)
    return io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, _MAX_INFLATED_HEADER))


class _BoundedReader(io.RawIOBase):
    """A file of which only so much is read: a length in a header may claim anything."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left = _MAX_READ_BYTES

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(content)
        if self._left <= 0:
            raise RefusedFileError("file too large")
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
