"""Plain image files, by Pillow: JPEG, PNG, TIFF, WebP, BMP, GIF, PNM.

How each becomes 8-bit RGB is told in docs/reference/images.md.
"""

from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fedmedclip.edge_client.images.readers.grey_values import chosen_window, grey_image, to_eight_bits
from fedmedclip.edge_client.images.readers.refusal import (
    RefusedFileError,
    check_size,
    reason_of_decoding_error,
)
from fedmedclip.edge_client.images.readers.settings import ReaderSettings

# Only these decoders ever see a file: others that Pillow has start programs or fetch further files.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_DEEP_GREY_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "F"})
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def read_plain(file: BinaryIO, frame: int | None, settings: ReaderSettings) -> Image.Image:
    """Read an image file as RGB, upright; `frame` counts from 1, None leaves the choice to the settings.

    Raises RefusedFileError.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            check_size(*image.size)
            _go_to_frame(image, frame, settings)
            _refuse_mode(image)
            image.load()
            return _as_rgb(image, settings)
    except RefusedFileError:
        raise
    except UnidentifiedImageError as error:
        raise RefusedFileError("not an image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RefusedFileError("too many pixels") from error
    # Decoders meet hostile bytes here and answer with many exceptions: OSError, SyntaxError, struct.error,
    # zlib.error, IndexError, OverflowError... Whatever it is, the file cannot be used.
    except Exception as error:
        raise RefusedFileError(reason_of_decoding_error(error)) from error


def plain_frames(file: BinaryIO) -> int:
    """Return the number of pages or frames of an image file; 1 when that cannot be told."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except Exception:
        # What is wrong with the file is said when it is read.
        return 1


def _go_to_frame(image: ImageFile.ImageFile, frame: int | None, settings: ReaderSettings) -> None:
    if frame is None and image.format == "TIFF" and settings.frames in ("auto", "first"):
        # Further pages are not even counted: a chain of them costs time.
        return
    # Of a phone's multi-picture JPEG the main picture is read: the others are previews.
    count = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
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
    if image.mode not in _EIGHT_BIT_MODES | _DEEP_GREY_MODES:
        raise RefusedFileError(f"{image.mode} colours" if image.mode.isalnum() else "unusual colours")
    # Pillow keeps the upper half of each value, which is right for colours; the grey of a 16-bit scan is
    # often all in the lower half.
    if image.format == "PNG" and image.tile[0][3] == "LA;16B":
        raise RefusedFileError("16-bit with alpha")
    if image.format == "TIFF" and image.mode in _EIGHT_BIT_MODES - {"RGB", "RGBA", "RGBX", "CMYK"}:
        bits = int(max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
        if bits > 8:
            raise RefusedFileError(f"{bits}-bit colours")


def _as_rgb(image: ImageFile.ImageFile, settings: ReaderSettings) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode not in _DEEP_GREY_MODES:
        # An alpha channel is dropped, not composited: no background would be the right one.
        return image.convert("RGB")
    inverted = (
        image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # type: ignore[attr-defined]
    )
    return grey_image(to_eight_bits(np.asarray(image), window=chosen_window(settings), inverted=inverted))
