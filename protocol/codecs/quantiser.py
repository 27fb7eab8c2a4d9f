"""Quantisers: rows of float32 values to small integers and a scale per row."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.packing import unzigzag, zigzag
from fedmedclip.protocol.codecs.scales import mean_magnitudes, round_scales
from fedmedclip.protocol.errors import CodecError

Floats = npt.NDArray[np.float32]
Symbols = npt.NDArray[np.uint8]

# The step between levels, in mean magnitudes, with the least squared error on normally distributed values
# (Max 1960, "Quantizing for minimum distortion"). With 8 bits the largest value decides.
_STEPS = {2: 1.53, 3: 0.81, 4: 0.46}
INTEGER_BITS = (2, 3, 4, 8)


@dataclass(frozen=True)
class Quantiser:
    """Integers of `bits` bits (1: the sign alone), symmetric about 0; value = integer * scale of its row."""

    bits: int

    @property
    def limit(self) -> int:
        """The largest integer."""
        return 1 if self.bits == 1 else (1 << (self.bits - 1)) - 1

    def quantise(self, rows: Floats) -> tuple[Floats, Symbols]:
        """Return scales float32 (rows,) and symbols uint8, shaped as `rows`. A scale of 0 means a row of 0.

        Raises HeadError for values beyond 2**100.
        """
        if self.bits == 1:
            return round_scales(mean_magnitudes(rows)), (rows >= 0).astype(np.uint8)
        wanted = np.abs(rows).max(axis=1, initial=0.0) / np.float32(self.limit)
        if self.bits in _STEPS:
            wanted = np.minimum(wanted, np.float32(_STEPS[self.bits]) * mean_magnitudes(rows))
        scales = round_scales(wanted)
        divisors = np.where(scales > 0, scales, np.float32(1))
        integers = np.clip(np.rint(rows / divisors[:, None]), -self.limit, self.limit)
        return scales, zigzag(integers.astype(np.int8))

    def dequantise(self, scales: Floats, symbols: Symbols) -> Floats:
        """Return float32 values of symbols (rows, n) and scales (rows,), or of arrays that broadcast so.

        Raises CodecError for a symbol that `quantise` does not make.
        """
        if symbols.max(initial=0) > 2 * self.limit - (self.bits == 1):
            raise CodecError(f"an encoded head has a symbol that {self.bits} bits do not hold")
        integers = 2 * symbols.astype(np.int16) - 1 if self.bits == 1 else unzigzag(symbols)
        values: Floats = integers.astype(np.float32) * scales
        return values
