"""Reading image files: what can be read becomes RGB, what cannot is refused with a short reason.

A hospital's folders hold scans that were cut off while copying, 16-bit exports, palettes and films.
None of these may stop a site, and none may be used without anybody knowing: each is refused with one of
a few fixed reasons, so that a report can count them.
"""

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from protocol.errors import FedMedClipError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
# Only these decoders ever see a file: others that Pillow has start programs or fetch further files.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

MAX_FILE_BYTES = 256 * 1024 * 1024
# 64 megapixels are 256 MB once decoded; an edge box has 2 GB.
MAX_PIXELS = 64 * 1024 * 1024
# Resizing the short side of a one-pixel strip to the encoder's size would make an image of gigabytes.
MAX_SIDE_RATIO = 32

_PLAIN_MODES = frozenset({"1", "L", "RGB"})
_ALPHA_MODES = frozenset({"LA", "RGBA"})
_REFUSED_MODES = {"CMYK": "CMYK", "P": "palette", "PA": "palette"}


class UnreadableImageError(FedMedClipError):
    """One image file that cannot be used; `reason` is short and the same for all files of its kind."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"image {path} cannot be used: {reason}")
        self.path = path
        self.reason = reason


def is_image_name(path: Path) -> bool:
    """Whether the name ends like an image file that can be read, and is not a hidden file."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def read_image(path: Path) -> Image.Image:
    """Read an 8-bit image file as RGB, upright (EXIF orientation applied).

    Grey and 1-bit images get three equal channels. An alpha channel is dropped, not composited: the
    colours under it are kept, for no background would be the right one. Of a phone's multi-picture JPEG
    the main picture is read.

    Raises UnreadableImageError, with one of the reasons "missing", "permission denied", "not a file",
    "unreadable (...)", "empty file", "file too large", "not an image", "truncated", "corrupt",
    "too many pixels", "too narrow", "animated", "several pages", "16-bit" (or more), "CMYK",
    "palette" or "... colours".
    """
    return decode_image(read_image_bytes(path), path)


def read_image_bytes(path: Path) -> bytes:
    """Return the file's content; raises UnreadableImageError when it is no file, or empty, or too large."""
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError(path, "not a file")
            if status.st_size > MAX_FILE_BYTES:
                raise UnreadableImageError(path, "file too large")
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise UnreadableImageError(path, _reason_of_system_error(error)) from error
    if not content:
        raise UnreadableImageError(path, "empty file")
    return content


def content_hash(content: bytes) -> bytes:
    """Return the 32 bytes that name an image by its file's content: SHA-256."""
    return hashlib.sha256(content).digest()


def decode_image(content: bytes, path: Path) -> Image.Image:
    """Decode the content of an image file as `read_image` does; `path` is only for the error."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if reason := _reason_to_refuse(image):
                raise UnreadableImageError(path, reason)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image.convert("RGB")
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError(path, "not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise UnreadableImageError(path, "too many pixels") from error
    # Decoders meet hostile bytes here and answer with many exceptions: OSError, SyntaxError, struct.error,
    # zlib.error, IndexError, OverflowError... Whatever it is, the file cannot be used.
    except Exception as error:
        raise UnreadableImageError(path, _reason_of_decoding_error(error)) from error


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silence Pillow's warnings about odd files, whose refusal is reported anyway, inside the block.

    To be entered by the thread that owns a reading loop, not by each reader: Python's warning filters are
    shared by all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _reason_to_refuse(image: ImageFile.ImageFile) -> str | None:
    """Judge an opened image by its header alone, before any memory is spent on its pixels."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        return "too many pixels"
    if max(width, height, 1) > MAX_SIDE_RATIO * min(width, height):
        return "too narrow"
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        return "several pages" if image.format == "TIFF" else "animated"
    if (bits := _bits_per_channel(image)) > 8:
        return f"{bits}-bit"
    if image.mode in _REFUSED_MODES:
        return _REFUSED_MODES[image.mode]
    if image.mode not in _PLAIN_MODES | _ALPHA_MODES:
        return f"{image.mode} colours"
    return None


def _bits_per_channel(image: ImageFile.ImageFile) -> int:
    """Bits per channel in the file, where they can be more than 8.

    Pillow opens 16-bit colour as plain RGB and throws half of each value away, so the mode does not tell.
    """
    if image.format == "TIFF":
        bits_per_sample = 258
        return int(max(image.tag_v2.get(bits_per_sample, (1,))))  # type: ignore[attr-defined]
    if image.format == "PNG":
        raw_mode = image.tile[0][3]
        return 16 if str(raw_mode).endswith(";16B") else 8
    if image.format == "PPM":
        arguments = image.tile[0][3]
        maximal_value = arguments[-1] if isinstance(arguments, tuple) else 255
        return 16 if image.mode == "I" or (isinstance(maximal_value, int) and maximal_value > 255) else 8
    return 8


def _reason_of_system_error(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, IsADirectoryError):
        return "not a file"
    return f"unreadable ({error.strerror})"


def _reason_of_decoding_error(error: Exception) -> str:
    message = str(error).lower()
    cut_off = isinstance(error, EOFError) or "truncated" in message or "unexpected end" in message
    return "truncated" if cut_off else "corrupt"
