"""What TIFF files mean by their samples, where Pillow's modes do not say it.

Pillow has one mode for samples of several formats and gives the bits of others; of some it forgets the order
of bytes, or takes them for bytes. What not every version that is allowed reads right is refused.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageFile

from fedmedclip.edge_client.images.readers.refusal import RefusedFileError

TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Pillow's modes of 8-bit images, and of deeper grey.
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
DEEP_GREY_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "F"})

_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262
_SAMPLES_PER_PIXEL, _PLANAR_CONFIGURATION, _SAMPLE_FORMAT = 277, 284, 339
_UNCOMPRESSED, _OLD_JPEG = 1, 6
_WHITE_IS_ZERO, _YCBCR = 0, 6
_IN_PLANES = 2
_UNSIGNED, _SIGNED = 1, 2
_DEEP_BIG_ENDIAN = re.compile(r";(16|32)B")


def check_tiff(image: ImageFile.ImageFile) -> None:
    """Judge an opened TIFF before its pixels are loaded, and see to it that they are in the right order.

    Raises RefusedFileError for samples that would be read wrong.
    """
    compression, photometric = _tag(image, _COMPRESSION, _UNCOMPRESSED), _tag(image, _PHOTOMETRIC, None)
    if photometric is None and compression != _OLD_JPEG:
        # Pillow takes zero for white then, but not at every depth.
        raise RefusedFileError("no photometric interpretation")
    # Read without their subsampling, or as if they were RGB, as versions of Pillow go.
    if photometric == _YCBCR and compression == _UNCOMPRESSED:
        raise RefusedFileError("YCbCr colours")
    if image.mode == "L" and _tag(image, _SAMPLES_PER_PIXEL, 1) > 1:
        raise RefusedFileError("unusual colours")
    bits = _tag(image, _BITS_PER_SAMPLE, 1)
    # Planes of deep colours are taken for planes of bytes.
    read_right = image.mode in {"RGB", "RGBA", "RGBX", "CMYK"} and not _is_in_planes(image)
    if bits > 8 and image.mode in EIGHT_BIT_MODES and not read_right:
        raise RefusedFileError(f"{bits}-bit colours")
    _correct_byte_order(image)


def grey_of_tiff(image: ImageFile.ImageFile) -> tuple[npt.NDArray[Any] | None, bool]:
    """Return the values of grey that is not plain 8-bit, and whether 0 is white; (None, False) for others."""
    form = _tag(image, _SAMPLE_FORMAT, _UNSIGNED)
    inverted = _tag(image, _PHOTOMETRIC, None) == _WHITE_IS_ZERO
    # Pillow has no mode for these two: it gives the bits.
    if image.mode == "L" and form == _SIGNED:
        return np.asarray(image).view(np.int8), inverted
    if image.mode == "I" and form != _SIGNED:
        return np.asarray(image).view(np.uint32), inverted
    return (np.asarray(image), inverted) if image.mode in DEEP_GREY_MODES else (None, False)


def _correct_byte_order(image: ImageFile.ImageFile) -> None:
    """Tell Pillow that libtiff gives values in the machine's order: for some formats it forgets that."""
    codec, extents, offset, arguments = image.tile[0]
    if codec == "libtiff" and isinstance(arguments, tuple):
        native = _DEEP_BIG_ENDIAN.sub(r";\1N", str(arguments[0]))
        # A named tuple since Pillow 11.
        make: Any = getattr(type(image.tile[0]), "_make", tuple)
        image.tile = [make((codec, extents, offset, (native, *arguments[1:])))]


def _is_in_planes(image: ImageFile.ImageFile) -> bool:
    return bool(_tag(image, _PLANAR_CONFIGURATION, 1) == _IN_PLANES)


def _tag(image: ImageFile.ImageFile, tag: int, default: Any) -> Any:
    """A number of a TIFF's directory; of several, one for each sample, the largest."""
    value = image.tag_v2.get(tag, default)  # type: ignore[attr-defined]
    return max(value) if isinstance(value, tuple) else value
