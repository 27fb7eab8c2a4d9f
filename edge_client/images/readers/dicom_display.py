"""From stored values of a DICOM frame to 8-bit RGB: the grayscale pipeline of PS3.4 N.2, and colours.

    stored -> modality LUT or rescale -> VOI LUT or window -> MONOCHROME1 inverted -> 0..255

Elements are looked for in the frame's own functional groups (enhanced objects), then in the shared ones, then
in the file itself. What cannot be used is passed over: a file without a usable window goes from its smallest
value to its largest.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

from fedmedclip.edge_client.images.readers.dicom_file import DicomFile
from fedmedclip.edge_client.images.readers.dicom_tables import Interval, palette_colours, read_table
from fedmedclip.edge_client.images.readers.dicom_values import items, number, numbers, text, words
from fedmedclip.edge_client.images.readers.grey_values import (
    Floats,
    Transform,
    chosen_window,
    grey_image,
    linear_window,
    look_up,
    to_eight_bits,
)
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError
from fedmedclip.edge_client.images.readers.settings import ReaderSettings


def display(
    source: DicomFile, stored: npt.NDArray[Any], bits: int, index: int, settings: ReaderSettings
) -> Image.Image:
    """Return what `dicom_frame.read_frame` gave for frame `index` (from 0) as an RGB image.

    Raises RefusedFileError.
    """
    if stored.ndim == 3:
        return _colour_image(stored, bits)
    photometric = text(source.header, "PhotometricInterpretation")
    if photometric == "PALETTE COLOR":
        return _palette_image(source, stored)
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise RefusedFileError("unusual colours")
    meaning, measured = _measuring(
        next(_with(source.header, index, "PixelValueTransformationSequence")), _interval(stored, bits)
    )
    window = chosen_window(settings)
    if meaning is None and window is not None:
        raise RefusedFileError("no usable rescale")
    if meaning is not None and isinstance(settings.window, int):
        places = _with(source.header, index, "FrameVOILUTSequence")
        window = _window(places, measured, settings.window)
    with np.errstate(over="ignore", invalid="ignore"):
        return grey_image(
            to_eight_bits(
                stored,
                meaning=meaning or _as_stored,
                window=window,
                is_background=_padding(source),
                inverted=photometric == "MONOCHROME1",
            )
        )


def _with(header: Dataset, index: int, group: str) -> Iterator[Dataset]:
    """Where elements of a functional group may be: the frame's own group, the shared one, then the file."""
    frames = items(header, "PerFrameFunctionalGroupsSequence")
    shared = items(header, "SharedFunctionalGroupsSequence")
    for place in (*frames[index : index + 1], *shared[:1]):
        yield from items(place, group)[:1]
    yield header


def _interval(stored: npt.NDArray[Any], bits: int) -> Interval:
    """The values that such pixels can have."""
    if stored.dtype.kind == "f":
        return Interval(-np.inf, np.inf)
    if stored.dtype.kind == "i":
        return Interval(-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1)
    return Interval(0, 2.0**bits - 1)


def _as_stored(values: Floats) -> Floats:
    return values


def _measuring(place: Dataset, stored: Interval) -> tuple[Transform | None, Interval]:
    """The modality transformation (PS3.3 C.11.1), None for an unusable rescale, and the values it can give.

    It is a LUT, or a slope and an intercept, which are 1 and 0 where they are missing. Where one of them
    cannot be used nobody knows the units of the values, so no window means anything. An unusable LUT is
    refused: even the order of the values is unknown.
    """
    for item in items(place, "ModalityLUTSequence")[:1]:
        if len(item):
            if (table := read_table(item, stored)) is None:
                raise RefusedFileError("no usable modality LUT")
            return table, Interval(0, table.largest)
    slope = (numbers(place, "RescaleSlope") or [1.0])[0]
    intercept = (numbers(place, "RescaleIntercept") or [0.0])[0]
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        return None, stored
    if slope == 1 and intercept == 0:
        return _as_stored, stored
    ends = sorted((stored.lowest * slope + intercept, stored.highest * slope + intercept))
    if not np.isfinite(ends).all() and np.isfinite((stored.lowest, stored.highest)).all():
        return None, stored
    return lambda values: values * slope + intercept, Interval(*ends)


def _window(places: Iterator[Dataset], measured: Interval, wanted: int) -> Transform | None:
    """The VOI transformation (PS3.3 C.11.2), to 0..1; None when the file has none that can be used."""
    for place in places:
        luts = [_voi_table(item, measured) for item in items(place, "VOILUTSequence")]
        function = text(place, "VOILUTFunction") or "LINEAR"
        pairs = zip(numbers(place, "WindowCenter"), numbers(place, "WindowWidth"), strict=False)
        windows = [_voi_window(centre, width, function) for centre, width in pairs]
        for transforms in (luts, windows):
            if any(transforms):
                return _chosen(transforms, wanted)
    return None


def _chosen(transforms: Sequence[Transform | None], wanted: int) -> Transform | None:
    """The wanted one, counted from 1; by default (1) the first that can be used."""
    if wanted > len(transforms):
        raise RefusedFileError("no such window")
    if wanted > 1:
        return transforms[wanted - 1]
    return next(transform for transform in transforms if transform is not None)


def _voi_table(item: Dataset, measured: Interval) -> Transform | None:
    table = read_table(item, measured)
    return None if table is None else lambda values: table(values) / table.largest


def _voi_window(centre: float, width: float, function: str) -> Transform | None:
    if not (np.isfinite(centre) and np.isfinite(width)):
        return None
    match function:
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


def _padding(source: DicomFile) -> Any:
    """Tell background by Pixel Padding Value, and Range Limit where there is one (PS3.3 C.7.5.1.1.2).

    Float pixels have padding elements of their own (C.7.6.24).
    """
    kind = source.pixel_keyword.removesuffix("Data")
    first = _padding_value(source, f"{kind}PaddingValue")
    if first is None:
        return None
    last = _padding_value(source, f"{kind}PaddingRangeLimit")
    lowest, highest = sorted((first, first if last is None else last))
    return lambda values: (values >= lowest) & (values <= highest)


def _padding_value(source: DicomFile, keyword: str) -> float | None:
    if source.pixel_keyword == "PixelData":
        whole = words(source.header, keyword)
        if whole is None or len(whole) != 1:
            return None
        value, bits = int(whole[0]), number(source.header, "BitsStored", 16)
        if number(source.header, "PixelRepresentation") == 1:
            # In two's complement of the word, or of the stored bits.
            for width in (16, bits):
                value -= (1 << width) if 1 << width - 1 <= value < 1 << width else 0
        return float(value)
    values = numbers(source.header, keyword)
    if len(values) != 1 or np.isnan(values[0]):
        return None
    # As precise as the pixels, which it is compared with.
    return float(np.float32(values[0]) if source.pixel_keyword == "FloatPixelData" else values[0])


def _colour_image(colours: npt.NDArray[Any], bits: int) -> Image.Image:
    """Of deep colours the upper 8 bits; shallow ones are spread over all levels."""
    if bits > 8:
        colours = np.right_shift(colours, bits - 8).clip(0, 255)
    elif bits < 8:
        colours = (colours.astype(np.uint16) * 510 + (1 << bits) - 1) // (2 * ((1 << bits) - 1))
    return Image.fromarray(np.ascontiguousarray(colours.astype(np.uint8)))


def _palette_image(source: DicomFile, stored: npt.NDArray[Any]) -> Image.Image:
    """Palette colours (PS3.3 C.7.6.3.1.5), looked up for every value that a pixel can have."""
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        raise RefusedFileError("unusual colours")
    if text(source.header, "PixelPresentation") in ("MIXED", "COLOR"):
        raise RefusedFileError("unusual colours")
    return Image.fromarray(
        look_up(stored, palette_colours(source.header, source.little_endian, stored.dtype))
    )
