"""Lookup tables of DICOM files: modality, VOI and palette (PS3.3 C.11.1.1, C.11.2.1, C.7.6.3.1.5).

A table's descriptor has the number of entries, the value that the first one is for, and the bits of an entry.
The signs that its VR gives them say nothing: an entry is unsigned, and whether the first value is signed
depends on what the table is applied to (C.11.2.1.1: the rescaled values, not the stored ones).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from fedmedclip.edge_client.images.readers.dicom_values import words
from fedmedclip.edge_client.images.readers.grey_values import Floats, all_values
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError

# Entries that fill less than a sixteenth of their range are taken for narrower ones, in wider words.
_UNUSED_BITS = 4


@dataclass(frozen=True)
class Interval:
    """The values that a table may be asked for."""

    lowest: float
    highest: float


@dataclass(frozen=True)
class LookupTable:
    """`entries` float64 are for the values from `first` on; `bits` is the width of their range."""

    first: int
    entries: Floats
    bits: int

    @property
    def largest(self) -> float:
        """What an entry can be at most."""
        return float((1 << self.bits) - 1)

    def __call__(self, values: Floats) -> Floats:
        """Return the entry of each value; below the first and beyond the last these two."""
        last = len(self.entries) - 1
        positions = np.clip(np.nan_to_num(np.floor(values)) - self.first, 0, last)
        found: Floats = self.entries[positions.astype(np.int64)]
        return found


def read_table(
    item: Dataset, asked: Interval, descriptor: str = "LUTDescriptor", data: str = "LUTData"
) -> LookupTable | None:
    """Return a table that is applied to values of an interval; None for one without all its entries."""
    described, content = words(item, descriptor), words(item, data)
    if described is None or content is None or len(described) < 3:
        return None
    # An entry count of 0 is 65,536, which the field cannot hold.
    count, first, bits = int(described[0]) or 1 << 16, int(described[1]), int(described[2])
    if not 1 <= bits <= 16:
        return None
    entries: npt.NDArray[Any] = content[:count]
    if len(content) == (count + 1) // 2 < count:
        # Two entries of 8 bits in each word, the first in the lower half.
        entries, bits = content.astype("<u2").view(np.uint8)[:count], min(bits, 8)
    if len(entries) < count:
        return None
    needed = max(8, int(entries.max()).bit_length())
    if needed > bits or needed <= bits - _UNUSED_BITS:
        bits = needed
    return LookupTable(_signed_as_asked(first, count, asked), entries.astype(np.float64), bits)


def _signed_as_asked(first: int, count: int, asked: Interval) -> int:
    """The first value (from 0 to 65,535 as stored) with the sign that the values asked for may have."""
    negative = first - (1 << 16)
    if first < 1 << 15 or asked.lowest >= 0:
        return first
    # Where values go beyond 32,767 as well, only one of the two may meet them.
    if negative + count <= asked.lowest and first <= asked.highest:
        return first
    return negative


def palette_colours(header: Dataset, little_endian: bool, dtype: np.dtype[Any]) -> npt.NDArray[np.uint8]:
    """Return the colour of each value of an 8- or 16-bit dtype, uint8 (n, 3), in the order of bit patterns.

    Raises RefusedFileError without a usable palette.
    """
    values = all_values(dtype)
    if "RedPaletteColorLookupTableData" not in header:
        return _segmented_colours(header, little_endian, values)
    asked = Interval(float(values.min()), float(values.max()))
    channels, widths = [], []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        table = read_table(header, asked, f"{name}Descriptor", f"{name}Data")
        if table is None:
            raise RefusedFileError("no usable palette")
        channels.append(table(values.astype(np.float64)).astype(np.uint16))
        widths.append(table.bits)
    # A picture may have little of one colour: the widest of the three says what they can be.
    return _upper_eight_bits(np.stack(channels, axis=-1), deep=max(widths) > 8)


def _segmented_colours(
    header: Dataset, little_endian: bool, values: npt.NDArray[Any]
) -> npt.NDArray[np.uint8]:
    """Colours of a palette in segments (PS3.3 C.7.9), which pydicom's own function reads."""
    described = words(header, "RedPaletteColorLookupTableDescriptor")
    if "SegmentedRedPaletteColorLookupTableData" not in header or described is None or len(described) < 3:
        raise RefusedFileError("no usable palette")
    count, first = int(described[0]) or 1 << 16, int(described[1])
    if values.dtype.kind == "i" and first >= 1 << 15:
        first -= 1 << 16
    # Counted from the first value on: beyond the last entry pydicom would begin again.
    header.RedPaletteColorLookupTableDescriptor = [count & 0xFFFF, 0, int(described[2])]
    header.set_original_encoding(False, little_endian)
    colours = apply_color_lut((values.astype(np.int64) - first).clip(0, count - 1), header)[:, :3]
    return _upper_eight_bits(colours, deep=colours.dtype.itemsize > 1)


def _upper_eight_bits(colours: npt.NDArray[Any], *, deep: bool) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray((colours >> 8 if deep else colours).astype(np.uint8))
