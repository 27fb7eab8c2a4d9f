"""Plain image files, by Pillow: JPEG, PNG, TIFF, WebP, BMP, GIF, PNM, JPEG 2000.

How each becomes 8-bit RGB is told in docs/reference/images.md.
"""

import io
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from fedmedclip.edge_client.images.readers.codestreams import (
    CODESTREAM_2000,
    JP2_SIGNATURE,
    LONGEST_JP2_HEADER,
    codestream_of_jp2,
    read_jpeg_2000,
)
from fedmedclip.edge_client.images.readers.essentials import JPEG, PNG, essential, exif_orientation
from fedmedclip.edge_client.images.readers.grey_values import chosen_window, grey_image, to_eight_bits
from fedmedclip.edge_client.images.readers.refusal import (
    RefusedFileError,
    check_size,
    reason_of_decoding_error,
)
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.images.readers.stored_form import StoredForm
from fedmedclip.edge_client.images.readers.tiff import (
    DEEP_GREY_MODES,
    EIGHT_BIT_MODES,
    TIFF_MARKS,
    check_tiff,
    grey_of_tiff,
)

# Only these decoders ever see a file: others that Pillow has start programs or fetch further files.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# Pillow's modes that are no colours, and those that have not 8 bits.
_COLOURS = {**dict.fromkeys(("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"), "grey"), "P": "palette"}
_DEPTHS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "F": 32}

# How an image is turned upright, by its EXIF orientation (CIPA DC-008, 4.6.4.1).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_plain(file: BinaryIO, frame: int | None, settings: ReaderSettings) -> Image.Image:
    """Read an image file as RGB, upright; `frame` counts from 1, None leaves the choice to the settings.

    Raises RefusedFileError.
    """
    head = _head(file)
    try:
        pixels, orientation = _essential(file, head)
        _check_jpeg_2000(head)
        with Image.open(pixels, formats=FORMATS) as image:
            check_size(*image.size)
            _go_to_frame(image, frame, settings)
            _refuse_mode(image)
            largest = _largest_of_pgm(image)
            image.load()
            if image.format == "WEBP":
                orientation = exif_orientation(image.info.get("exif", b""))
            rgb = _as_rgb(image, settings, largest)
            return rgb if orientation not in _TURNS else rgb.transpose(_TURNS[orientation])
    except RefusedFileError:
        raise
    except UnidentifiedImageError as error:
        kind = "a TIFF of samples that are not read" if head.startswith(TIFF_MARKS) else "not an image"
        raise RefusedFileError(kind) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedFileError("too many pixels") from error
    # Decoders meet hostile bytes here and answer with many exceptions: OSError, SyntaxError, struct.error,
    # zlib.error, IndexError, OverflowError... Whatever it is, the file cannot be used.
    except Exception as error:
        raise RefusedFileError(reason_of_decoding_error(error)) from error


def plain_frames(file: BinaryIO) -> int:
    """Return the number of pages or frames of an image file; 1 when that cannot be told."""
    try:
        # Of a phone's multi-picture JPEG the main picture is left: the others are previews.
        with Image.open(_essential(file, _head(file))[0], formats=FORMATS) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:
        # What is wrong with the file is said when it is read.
        return 1


def plain_form(file: BinaryIO) -> StoredForm:
    """Return how an image file stores its pixels, by its header alone.

    Raises RefusedFileError, and whatever a decoder raises about damage.
    """
    with Image.open(_essential(file, _head(file))[0], formats=FORMATS) as image:
        raw = str(image.tile[0][3]) if image.tile else ""
        colours = _COLOURS.get(image.mode, "colour")
        depth = 16 if image.mode == "I" or "16" in raw else _DEPTHS.get(image.mode, 8)
        return StoredForm(str(image.format), depth, colours, image.size)


def _head(file: BinaryIO) -> bytes:
    head = file.read(LONGEST_JP2_HEADER)
    file.seek(0)
    return head


def _essential(file: BinaryIO, head: bytes) -> tuple[BinaryIO, int]:
    """The file as Pillow may see it, and the orientation that this leaves out."""
    # Others are not read as a whole: a stack of pages is opened for each page.
    if not head.startswith((JPEG, PNG)):
        return file, 1
    content, orientation = essential(file.read())
    return io.BytesIO(content), orientation


def _check_jpeg_2000(head: bytes) -> None:
    """Judge the size that the codestream itself has, which is what a decoder takes memory for."""
    if not head.startswith((CODESTREAM_2000, JP2_SIGNATURE)):
        return
    codestream = codestream_of_jp2(head)
    stream = read_jpeg_2000(codestream) if codestream is not None else None
    if stream is None:
        raise RefusedFileError("corrupt")
    check_size(*stream.size[:2])
    if stream.size[2] > 1 and stream.precision > 8:
        raise RefusedFileError(f"{stream.precision}-bit colours")


def _go_to_frame(image: ImageFile.ImageFile, frame: int | None, settings: ReaderSettings) -> None:
    if frame is None and image.format == "TIFF" and settings.frames in ("auto", "first"):
        # Further pages are not even counted: a chain of them costs time.
        return
    count = int(getattr(image, "n_frames", 1))
    if frame is None:
        if count > 1 and settings.frames == "auto":
            raise RefusedFileError("animated")
        frame = (count + 1) // 2 if settings.frames == "middle" else 1
    if not 1 <= frame <= count:
        raise RefusedFileError("no such frame")
    if count > 1:
        image.seek(frame - 1)
        check_size(*image.size)


def _refuse_mode(image: ImageFile.ImageFile) -> None:
    """Judge an opened image by its header alone, before any memory is spent on its pixels."""
    if image.mode not in EIGHT_BIT_MODES | DEEP_GREY_MODES:
        raise RefusedFileError(f"{image.mode} colours" if image.mode.isalnum() else "unusual colours")
    # Pillow keeps the upper half of each value, which is right for colours; the grey of a 16-bit scan is
    # often all in the lower half.
    if image.format == "PNG" and image.tile[0][3] == "LA;16B":
        raise RefusedFileError("16-bit with alpha")
    if image.format == "TIFF":
        check_tiff(image)


def _largest_of_pgm(image: ImageFile.ImageFile) -> int | None:
    """The value of white that a deep PGM names: Pillow spreads its values over 16 bits."""
    if image.format != "PPM" or image.mode != "I":
        return None
    arguments = image.tile[0][3]
    return int(arguments[-1]) if isinstance(arguments, tuple) else None


def _as_rgb(image: ImageFile.ImageFile, settings: ReaderSettings, largest: int | None) -> Image.Image:
    if image.format == "TIFF":
        grey, inverted = grey_of_tiff(image)
    else:
        grey, inverted = _deep_grey(image, largest), False
    if grey is None:
        # An alpha channel is dropped, not composited: no background would be the right one.
        return image.convert("RGB")
    return grey_image(to_eight_bits(grey, window=chosen_window(settings), inverted=inverted))


def _deep_grey(image: ImageFile.ImageFile, largest: int | None) -> npt.NDArray[Any] | None:
    """Return grey that is not plain 8-bit, as the file means its values; None for other images."""
    if image.mode not in DEEP_GREY_MODES:
        return None
    values = np.asarray(image)
    return values if largest is None else np.round(values * (largest / 65535)).astype(np.uint16)
