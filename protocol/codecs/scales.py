"""Scales: positive float32 values in two bytes, the upper half of the number, rounded up.

They are 0, or from 2**-100 to 2**100: an integer times a scale is then neither infinite nor subnormal, and
the same on every machine.
"""

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import CodecError, HeadError

SCALE_BYTES = 2
_SMALLEST, _LARGEST = np.float32(2.0**-100), np.float32(2.0**100)

Floats = npt.NDArray[np.float32]


def round_scales(wanted: Floats) -> Floats:
    """Return the nearest scales not below `wanted` (up to 2**-7 above); what is below 2**-100 becomes 0.

    Raises HeadError above 2**100.
    """
    if not (wanted < _LARGEST).all():
        raise HeadError("a value of a delta is too large to encode; did training diverge?")
    upper = (wanted.astype(np.float32).view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)
    rounded: Floats = np.where(wanted < _SMALLEST, np.float32(0), upper.view(np.float32))
    return rounded


def scales_to_bytes(scales: Floats) -> bytes:
    """Return rounded scales as bytes, two each, little-endian."""
    return (scales.view(np.uint32) >> np.uint32(16)).astype("<u2").tobytes()


def scales_from_bytes(stored: bytes) -> Floats:
    """Return the scales. Raises CodecError for one that is negative, NaN or out of range."""
    upper = np.frombuffer(stored, "<u2").astype(np.uint32) << np.uint32(16)
    scales = upper.view(np.float32)
    in_range = (scales == 0) | ((scales >= _SMALLEST) & (scales <= _LARGEST))
    if not (in_range & ~np.signbit(scales)).all():
        raise CodecError("an encoded head has a scale that is negative, NaN or out of range")
    return scales


def mean_magnitudes(rows: Floats) -> Floats:
    """Return the mean of |x| of each row, float32 (rows,), exact to 2**-20 of the largest of the row.

    A sum of floats depends on its order, which differs between processors; one of integers below 2**53
    does not.
    """
    magnitudes = np.abs(rows)
    largest = magnitudes.max(axis=1, initial=0.0)
    magnitudes /= np.where(largest > 0, largest, np.float32(1))[:, None]
    magnitudes *= np.float32(2.0**20)
    sums = np.rint(magnitudes, out=magnitudes).sum(axis=1, dtype=np.float64)
    means: Floats = (sums * largest.astype(np.float64) / (2.0**20 * rows.shape[1])).astype(np.float32)
    return means
