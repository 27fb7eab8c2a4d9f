"""Grey values of any depth become 8 bits: by a window, or from the smallest value to the largest.

Arrays of up to 16 bits go through a table with an entry for each value that they can hold, so the mapping is
computed 65,536 times at most, in float64, and the image itself is never blown up to floats.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedmedclip.edge_client.images.readers.refusal import RefusedFileError
from fedmedclip.edge_client.images.readers.settings import ReaderSettings

Floats = npt.NDArray[np.float64]
Transform = Callable[[Floats], Floats]

_AT_ONCE = 1 << 20


def linear_window(centre: float, width: float) -> Transform:
    """Values to 0..1 by DICOM's function LINEAR_EXACT (PS3.3 C.11.2.1.3.2)."""
    return lambda values: np.clip((values - centre) / width + 0.5, 0, 1)


def chosen_window(settings: ReaderSettings) -> Transform | None:
    """Return the window that the settings give in numbers, if they do."""
    if not isinstance(settings.window, tuple):
        return None
    centre, width = settings.window
    return linear_window(centre, width)


def to_eight_bits(
    stored: npt.NDArray[Any],
    *,
    meaning: Transform = lambda values: values,
    window: Transform | None = None,
    is_background: Callable[[Floats], npt.NDArray[np.bool_]] | None = None,
    inverted: bool = False,
) -> npt.NDArray[np.uint8]:
    """Map stored values, integers or floats of any shape, to uint8 of that shape.

    `meaning` turns stored values into what they measure (Hounsfield units, say), `window` maps those to 0..1;
    without it the smallest becomes 0 and the largest 1. What `is_background` finds among the stored values
    does not count for that and becomes black, as do values that are not finite. `inverted` makes large values
    dark.

    Raises RefusedFileError when no value is finite.
    """
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        return _through_table(stored, meaning, window, is_background, inverted)
    return _directly(stored, meaning, window, is_background, inverted)


def grey_image(levels: npt.NDArray[np.uint8]) -> Image.Image:
    """Return uint8 (height, width) as an RGB image of three equal channels."""
    return Image.fromarray(np.ascontiguousarray(levels)).convert("RGB")


def present_values(stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Tell which values of an 8- or 16-bit dtype occur: bool (2^bits,), by bit pattern."""
    present = np.zeros(1 << 8 * stored.dtype.itemsize, dtype=np.bool_)
    for part in _parts(_bit_patterns(stored)):
        present[part] = True
    return present


def look_up(stored: npt.NDArray[Any], table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return `table[bit pattern]` for each value: uint8 of the shape of `stored` and the table's columns."""
    patterns = _bit_patterns(stored)
    found = np.empty((patterns.size, *table.shape[1:]), dtype=np.uint8)
    # In parts, because an array of indices takes eight bytes a pixel.
    for number, part in enumerate(_parts(patterns)):
        found[number * _AT_ONCE : number * _AT_ONCE + part.size] = table[part]
    return found.reshape(*stored.shape, *table.shape[1:])


def all_values(dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return every value of an 8- or 16-bit integer dtype, in the order of the bit patterns."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    return np.arange(1 << 8 * dtype.itemsize, dtype=unsigned).view(dtype.newbyteorder("="))


def _through_table(
    stored: npt.NDArray[Any],
    meaning: Transform,
    window: Transform | None,
    is_background: Callable[[Floats], npt.NDArray[np.bool_]] | None,
    inverted: bool,
) -> npt.NDArray[np.uint8]:
    values = all_values(stored.dtype).astype(np.float64)
    background = np.zeros(values.shape, np.bool_) if is_background is None else is_background(values)
    measured = meaning(values)
    if window is None:
        window = _range_window([measured[present_values(stored) & ~background]])
    return look_up(stored, _levels(measured, window, background, inverted))


def _directly(
    stored: npt.NDArray[Any],
    meaning: Transform,
    window: Transform | None,
    is_background: Callable[[Floats], npt.NDArray[np.bool_]] | None,
    inverted: bool,
) -> npt.NDArray[np.uint8]:
    def background_of(values: Floats) -> npt.NDArray[np.bool_]:
        return np.zeros(values.shape, np.bool_) if is_background is None else is_background(values)

    def parts() -> Iterator[Floats]:
        yield from (part.astype(np.float64) for part in _parts(stored.reshape(-1)))

    if window is None:
        window = _range_window(meaning(part)[~background_of(part)] for part in parts())
    levels = [_levels(meaning(part), window, background_of(part), inverted) for part in parts()]
    return np.concatenate(levels).reshape(stored.shape)


def _range_window(parts: Any) -> Transform:
    """The window from the smallest to the largest finite value of all parts."""
    lowest, highest = np.inf, -np.inf
    for part in parts:
        finite = part[np.isfinite(part)]
        if finite.size:
            lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
    if lowest > highest:
        raise RefusedFileError("no usable value")
    span = highest - lowest
    if not np.isfinite(span):
        raise RefusedFileError("no usable value")
    return lambda values: np.clip((values - lowest) / (span or 1.0), 0, 1)


def _levels(
    measured: Floats, window: Transform, background: npt.NDArray[np.bool_], inverted: bool
) -> npt.NDArray[np.uint8]:
    finite = np.isfinite(measured)
    shares = window(np.where(finite, measured, 0))
    if inverted:
        shares = 1 - shares
    levels: npt.NDArray[np.uint8] = np.floor(shares * 255 + 0.5).astype(np.uint8)
    levels[background | ~finite] = 0
    return levels


def _bit_patterns(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    native = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder("="), copy=False))
    return native.view(f"u{stored.dtype.itemsize}").reshape(-1)


def _parts(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, values.size, _AT_ONCE):
        yield values[start : start + _AT_ONCE]
