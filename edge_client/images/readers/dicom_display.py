"""From stored values of a DICOM frame to 8-bit RGB: the grayscale pipeline of PS3.4 N.2, and colours.

    stored -> modality LUT or rescale -> VOI LUT or window -> MONOCHROME1 inverted -> 0..255

Elements are looked for in the frame's own functional groups (enhanced objects), then in the shared ones, then
in the file itself.
"""

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from fedmedclip.edge_client.images.readers.dicom_file import DicomFile, number
from fedmedclip.edge_client.images.readers.grey_values import (
    Floats,
    Transform,
    all_values,
    chosen_window,
    grey_image,
    linear_window,
    look_up,
    to_eight_bits,
)
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError
from fedmedclip.edge_client.images.readers.settings import ReaderSettings


def display(
    source: DicomFile, stored: npt.NDArray[Any], photometric: str, index: int, settings: ReaderSettings
) -> Image.Image:
    """Return what `dicom_frame.read_frame` gave for frame `index` (from 0) as an RGB image.

    Raises RefusedFileError.
    """
    if photometric == "PALETTE COLOR":
        return _palette_image(source, stored)
    if stored.ndim == 3:
        return _colour_image(source, stored, photometric)
    if not photometric.startswith("MONOCHROME"):
        raise RefusedFileError("unusual colours")
    places = _places(source.header, index)
    meaning = _meaning(_with(places, "PixelValueTransformationSequence", source.header), source)
    window = chosen_window(settings)
    if isinstance(settings.window, int):
        window = _window(_with(places, "FrameVOILUTSequence", source.header), source, settings.window)
    with np.errstate(over="ignore", invalid="ignore"):
        return grey_image(
            to_eight_bits(
                stored,
                meaning=meaning,
                window=window,
                is_background=_padding(source),
                inverted=photometric == "MONOCHROME1",
            )
        )


def _places(header: Dataset, index: int) -> list[Dataset]:
    """The functional groups of a frame: its own, then the shared ones."""
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return [*([own[index]] if index < len(own) else []), *shared[:1]]


def _with(places: list[Dataset], group: str, otherwise: Dataset) -> Dataset:
    """The first item of a functional group, where a place has it."""
    for place in places:
        if items := place.get(group):
            return cast(Dataset, items[0])
    return otherwise


def _meaning(place: Dataset, source: DicomFile) -> Transform:
    """The modality transformation (PS3.3 C.11.1): a LUT, or a slope and an intercept, or nothing."""
    if items := place.get("ModalityLUTSequence"):
        return _table(items[0], source)[0]
    slope, intercept = place.get("RescaleSlope"), place.get("RescaleIntercept")
    if slope is None or intercept is None:
        return lambda values: values
    factor, offset = float(slope), float(intercept)
    if not (np.isfinite(factor) and np.isfinite(offset)) or factor == 0:
        raise RefusedFileError("corrupt")
    return lambda values: values * factor + offset


def _window(place: Dataset, source: DicomFile, wanted: int) -> Transform | None:
    """The VOI transformation (PS3.3 C.11.2), to 0..1; None when the file has none, or only unusable ones."""
    if luts := place.get("VOILUTSequence"):
        if wanted > len(luts):
            raise RefusedFileError("no such window")
        table, largest = _table(luts[wanted - 1], source)
        return lambda values: table(values) / largest
    centres, widths = _floats(place, "WindowCenter"), _floats(place, "WindowWidth")
    count = min(len(centres), len(widths))
    if count == 0:
        return None
    if wanted > count:
        raise RefusedFileError("no such window")
    centre, width = centres[wanted - 1], widths[wanted - 1]
    if not (np.isfinite(centre) and np.isfinite(width)):
        return None
    match str(place.get("VOILUTFunction") or "LINEAR").strip().upper():
        case "SIGMOID" if width > 0:
            return lambda values: 1 / (1 + np.exp(-4 * (values - centre) / width))
        case "LINEAR_EXACT" if width > 0:
            return linear_window(centre, width)
        case "LINEAR" if width == 1:
            return lambda values: (values > centre - 0.5).astype(np.float64)
        case "LINEAR" if width > 1:
            return linear_window(centre - 0.5, width - 1)
        case _:
            # A width of 0 is met in the wild and is no window at all.
            return None


def _floats(place: Dataset, keyword: str) -> list[float]:
    value = place.get(keyword)
    if value is None or value == "":
        return []
    return [float(one) for one in (value if hasattr(value, "__iter__") else [value])]


def _table(item: Dataset, source: DicomFile) -> tuple[Transform, float]:
    """A lookup table (PS3.3 C.11.1.1.1) as a transformation, and the largest value that it can give."""
    entries, first, bits = _integers(item.get("LUTDescriptor"), source)[:3]
    if number(source.header, "PixelRepresentation") == 1 and first >= 1 << 15:
        first -= 1 << 16
    entries = entries or 1 << 16
    data = item.get("LUTData")
    if isinstance(data, bytes) and len(data) < 2 * entries:
        values = np.frombuffer(data, "u1").astype(np.float64)
    else:
        values = np.asarray(_integers(data, source), dtype=np.float64)
    values = values[:entries]
    if not len(values) > 0 or not 1 <= bits <= 16:
        raise RefusedFileError("corrupt")

    def transform(numbers: Floats) -> Floats:
        positions = np.clip(np.nan_to_num(np.floor(numbers)) - first, 0, len(values) - 1)
        found: Floats = values[positions.astype(np.int64)]
        return found

    return transform, max(float((1 << bits) - 1), float(values.max()))


def _integers(value: Any, source: DicomFile) -> list[int]:
    """The values of an element that may be numbers or, where the representation is ambiguous, raw bytes."""
    if isinstance(value, bytes):
        order = "<" if source.little_endian else ">"
        return cast(list[int], np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").tolist())
    if value is None:
        raise RefusedFileError("corrupt")
    return [int(one) for one in (value if hasattr(value, "__iter__") else [value])]


def _padding(source: DicomFile) -> Any:
    """Tell background by Pixel Padding Value, and Range Limit where there is one (PS3.3 C.7.5.1.1.2)."""
    if source.header.get("PixelPaddingValue") is None:
        return None
    first = _padding_value(source, "PixelPaddingValue")
    last = first
    if source.header.get("PixelPaddingRangeLimit") is not None:
        last = _padding_value(source, "PixelPaddingRangeLimit")
    lowest, highest = min(first, last), max(first, last)
    return lambda values: (values >= lowest) & (values <= highest)


def _padding_value(source: DicomFile, keyword: str) -> int:
    value = _integers(source.header.get(keyword), source)[0]
    signed = number(source.header, "PixelRepresentation") == 1
    return value - (1 << 16) if signed and value >= 1 << 15 else value


def _colour_image(source: DicomFile, stored: npt.NDArray[Any], photometric: str) -> Image.Image:
    if photometric != "RGB" or stored.dtype.kind != "u":
        raise RefusedFileError("unusual colours")
    # A fourth sample would be an alpha channel; it is dropped, as everywhere.
    colours = stored[..., :3]
    if (bits := number(source.header, "BitsStored", 8 * stored.dtype.itemsize)) > 8:
        colours = np.right_shift(colours, bits - 8).clip(0, 255)
    return Image.fromarray(np.ascontiguousarray(colours.astype(np.uint8)))


def _palette_image(source: DicomFile, stored: npt.NDArray[Any]) -> Image.Image:
    """Palette colours (PS3.3 C.7.6.3.1.5): pydicom's own function, on every value that a pixel can have."""
    if stored.ndim != 2 or stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        raise RefusedFileError("unusual colours")
    if source.header.get("PixelPresentation") in ("MIXED", "COLOR"):
        raise RefusedFileError("unusual colours")
    source.header.set_original_encoding(False, source.little_endian)
    colours = apply_color_lut(all_values(stored.dtype), source.header)[:, :3]
    if colours.dtype.itemsize > 1:
        colours = colours >> 8
    return Image.fromarray(look_up(stored, np.ascontiguousarray(colours.astype(np.uint8))))
