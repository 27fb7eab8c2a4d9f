"""Luminance and two colour differences (YBR_FULL, PS3.3 C.7.6.3.1.2) as red, green and blue."""

from typing import Any

import numpy as np
import numpy.typing as npt

# ITU-R BT.601, as JFIF has it: rows are Y, Cb and Cr, columns red, green and blue.
_RGB_OF_YBR = np.array(
    [[1, 1, 1], [0, -0.114 * 1.772 / 0.587, 1.772], [1.402, -0.299 * 1.402 / 0.587, 0]], np.float32
)
_PIXELS_AT_ONCE = 1 << 20


def rgb_of_ybr(ybr: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Return full-range YBR of so many bits, unsigned (height, width, 3), as RGB of the same dtype."""
    rgb = np.empty_like(ybr)
    rows = max(1, _PIXELS_AT_ONCE // ybr.shape[1])
    # In parts: as floats an image takes four times its bytes.
    for start in range(0, len(ybr), rows):
        part = ybr[start : start + rows].astype(np.float32)
        part[..., 1:] -= 1 << bits - 1
        rgb[start : start + rows] = np.clip(np.floor(part @ _RGB_OF_YBR + 0.5), 0, (1 << bits) - 1)
    return rgb
