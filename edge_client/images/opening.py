"""Reading image files: what can be read becomes 8-bit RGB, what cannot is refused with a short reason.

A hospital's folders hold DICOM files without a name that says so, scans that were cut off while copying,
16-bit exports and films. None of these may stop a site, and none may be left out without anybody knowing:
each refusal has one of a few fixed reasons, so that a report can count them. The kind of a file is told by
its content.
"""

import hashlib
import re
import warnings
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from PIL import Image

from fedmedclip.edge_client.images import readers
from fedmedclip.edge_client.images.readers.address import Address, frame_address, parse_address
from fedmedclip.edge_client.images.readers.archive import PARTS, archive_form, read_archive_image
from fedmedclip.edge_client.images.readers.dicom import dicom_form, dicom_frames, is_dicom, read_dicom
from fedmedclip.edge_client.images.readers.nifti import is_nifti, nifti_form, nifti_frames, read_nifti
from fedmedclip.edge_client.images.readers.plain import plain_form, plain_frames, read_plain
from fedmedclip.edge_client.images.readers.refusal import MAX_FILE_BYTES, RefusedFileError
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.readers.source import Source, open_source, read_head, source_of_bytes
from fedmedclip.edge_client.images.readers.stored_form import StoredForm
from fedmedclip.protocol.errors import FedMedClipError

PLAIN_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".jfi"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        *(".pbm", ".pgm", ".ppm", ".pnm", ".pfm"),
        *(".bmp", ".dib", ".gif", ".png", ".apng", ".tif", ".tiff", ".webp"),
    }
)
IMAGE_SUFFIXES = PLAIN_SUFFIXES | {".dcm", ".dicom", ".nii"}

# Part of each image's key: raised when a reader gives other pixels than before.
_READER_VERSION = 2
# JPEG and BMP: no setting changes what is read from them.
_WITHOUT_CHOICE = (b"\xff\xd8\xff", b"BM")
# How plain files begin: what is named like DICOM and begins so is none.
_PLAIN_MARKS = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "),
)
# The index of a DICOM medium: it is a DICOM file, and never an image.
_DICOM_INDEX = "DICOMDIR"
# Whose warnings say nothing that a refusal does not.
_DECODERS = rf"PIL\.|pydicom|pylibjpeg|openjpeg|libjpeg|{re.escape(readers.__name__)}"


class UnreadableImageError(FedMedClipError):
    """One image file that cannot be used; `reason` is short and the same for all files of its kind."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"image {path} cannot be used: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class ImageIdentity:
    """`content_hash` is SHA-256 of the file (in an archive: of the pixels); `key` also covers the reading."""

    content_hash: bytes
    key: bytes


def is_image_name(path: Path) -> bool:
    """Whether the name ends like an image file that can be read, and is not a hidden file."""
    name = path.name.lower()
    return not name.startswith(".") and (path.suffix.lower() in IMAGE_SUFFIXES or name.endswith(".nii.gz"))


def is_image_file(path: Path) -> bool:
    """Whether a file in a folder is taken for an image: by its name, or because it begins like a DICOM file.

    Scanners and archives name files IM000001 or by their UID, so only the content tells.
    """
    if is_image_name(path):
        return True
    if path.name.startswith(".") or path.name.upper() == _DICOM_INDEX:
        return False
    return read_head(path)[128:132] == b"DICM"


def read_image(path: Path, settings: ReaderSettings = DEFAULT_READING) -> Image.Image:
    """Read an image, given by its file or address (see `readers.address`), as 8-bit RGB.

    docs/reference/images.md says how each kind of file becomes that. Raises UnreadableImageError, with a
    short reason such as "truncated", "not an image", "too many pixels" or "no pixels".
    """
    return read_identified(path, settings)[1]


def read_identified(path: Path, settings: ReaderSettings) -> tuple[ImageIdentity, Image.Image]:
    """Read an image as `read_image` does, with the identity of exactly the bytes that were read."""
    address = parse_address(path)
    try:
        if address.kind in PARTS:
            found = read_archive_image(address.file, str(address.kind), address.number or 0)
            return _archive_identity(found.content_hash), found.image
        frame = _frame_of(address)
        with open_source(address.file, often=frame is not None) as source:
            return _identity(source, frame, settings), _decode(source, address.file, frame, settings)
    except RefusedFileError as refusal:
        raise UnreadableImageError(path, refusal.reason) from refusal.__cause__


def identify_image(path: Path, settings: ReaderSettings) -> ImageIdentity:
    """Return an image's identity without decoding it. Raises UnreadableImageError."""
    address = parse_address(path)
    try:
        if address.kind in PARTS:
            found = read_archive_image(address.file, str(address.kind), address.number or 0)
            return _archive_identity(found.content_hash)
        frame = _frame_of(address)
        with open_source(address.file, often=frame is not None) as source:
            return _identity(source, frame, settings)
    except RefusedFileError as refusal:
        raise UnreadableImageError(path, refusal.reason) from refusal.__cause__


def decode_image(
    content: bytes, path: Path, settings: ReaderSettings = DEFAULT_READING, frame: int | None = None
) -> Image.Image:
    """Decode the content of an image file as `read_image` does; `path` is only for its name and the error."""
    try:
        return _decode(source_of_bytes(content), path, frame, settings)
    except RefusedFileError as refusal:
        raise UnreadableImageError(path, refusal.reason) from refusal.__cause__


def frames_of(path: Path, settings: ReaderSettings) -> list[Path]:
    """Return the addresses of the images that a file gives: itself, or with frames = "all" each of its
    frames.
    """
    address = parse_address(path)
    if settings.frames != "all" or address.kind is not None:
        return [path]
    try:
        with open_source(path, often=True) as source:
            if is_dicom(source.head) or _named_dicom(path):
                count = dicom_frames(source.file)
            elif is_nifti(source.head):
                count = nifti_frames(source.file)
            else:
                count = plain_frames(source.file)
    except RefusedFileError:
        # What is wrong with the file is said when it is read.
        return [path]
    return [path] if count == 1 else [frame_address(path, number) for number in range(1, count + 1)]


def stored_form(path: Path) -> StoredForm | None:
    """Return how the image of a file or address is stored, by its header; None when that cannot be told."""
    address = parse_address(path)
    try:
        if address.kind in PARTS:
            return archive_form(address.file, str(address.kind))
        with open_source(address.file) as source:
            if is_dicom(source.head) or (_named_dicom(address.file) and not _is_plain(source.head)):
                return dicom_form(source.file)
            return nifti_form(source.file) if is_nifti(source.head) else plain_form(source.file)
    except Exception:
        # What is wrong with the file is said when it is read.
        return None


class _Quiet:
    """Python's warning filters while anybody wants them quiet: set by the first, put back by the last.

    All threads share the filters, and `warnings.catch_warnings` alone would put back another thread's.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._holders = 0
        self._filters = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._holders == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=_DECODERS)
            self._holders += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                self._filters.close()


_quiet = _Quiet()


def quiet_decoders() -> AbstractContextManager[None]:
    """Silence the decoders' warnings about odd files, whose refusal is reported anyway, inside the block.

    To be entered by who owns a reading loop, not by each reader.
    """
    return _quiet


def _decode(source: Source, path: Path, frame: int | None, settings: ReaderSettings) -> Image.Image:
    if is_dicom(source.head) or (_named_dicom(path) and not _is_plain(source.head)):
        return read_dicom(source.file, frame, settings)
    if is_nifti(source.head):
        return read_nifti(source.file, frame, settings)
    if source.size > MAX_FILE_BYTES:
        raise RefusedFileError("file too large")
    return read_plain(source.file, frame, settings)


def _named_dicom(path: Path) -> bool:
    return path.suffix.lower() in (".dcm", ".dicom")


def _is_plain(head: bytes) -> bool:
    return head.startswith(_PLAIN_MARKS)


def _frame_of(address: Address) -> int | None:
    if address.kind is None:
        return None
    if address.kind != "frame":
        raise RefusedFileError("no such frame")
    return address.number


def _identity(source: Source, frame: int | None, settings: ReaderSettings) -> ImageIdentity:
    """The key names everything that may decide about the pixels."""
    how = f"reader {_READER_VERSION}"
    if not source.head.startswith(_WITHOUT_CHOICE):
        chosen = f"frame {frame}" if frame is not None else f"frames {settings.frames}"
        how += f", {chosen}, window {settings.window}"
    return ImageIdentity(source.content_hash, hashlib.sha256(source.content_hash + how.encode()).digest())


def _archive_identity(content_hash: bytes) -> ImageIdentity:
    how = f"archive reader {_READER_VERSION}"
    return ImageIdentity(content_hash, hashlib.sha256(content_hash + how.encode()).digest())
