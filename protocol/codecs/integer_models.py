"""How probable an integer is, given those before it: what the range coder needs to make it few bits.

The number of binary digits is coded in unary, each step of it with counts of its own, chosen by how large
the integers before were: rows of large and of small ones share what they teach. Then come the digits behind
the leading one, the first two of them with counts, and the sign.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.range_coder import Coder, Contexts

DIGITS = 12
LARGEST_INTEGER = (1 << DIGITS) - 1
_LEVELS = 17

Integers = npt.NDArray[np.int64]


class IntegerModel:
    """What has been learnt from the integers so far, all of them `seen`. They are from -4095 to 4095."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._lengths = Contexts(_LEVELS * DIGITS)
        self._digits = Contexts(3 * (DIGITS + 1))
        self._signs = Contexts(1)
        # Sixteen times a running mean of the magnitudes.
        self._level = 16

    def code(self, coder: Coder, integer: int = 0) -> int:
        """Code one integer and return it (a decoder: the one that was coded)."""
        given, length = abs(integer), 0
        first = self._level.bit_length() * DIGITS
        while length < DIGITS and coder.bit(self._lengths, first + length, given >> length > 0):
            length += 1
        magnitude = self._digits_behind_one(coder, given, length) if length > 1 else length
        self._level += magnitude - (self._level >> 4)
        negative = magnitude > 0 and coder.bit(self._signs, 0, integer < 0)
        self.seen.append(-magnitude if negative else magnitude)
        return self.seen[-1]

    def code_row(self, coder: Coder, integers: Iterable[int]) -> Integers:
        """Code integers, one after another, and return them."""
        return np.asarray([self.code(coder, integer) for integer in integers], np.int64)

    def _digits_behind_one(self, coder: Coder, given: int, length: int) -> int:
        first = 3 * length
        magnitude = 2 | coder.bit(self._digits, first, given >> length - 2 & 1)
        if length > 2:
            context = first + 1 + (magnitude & 1)
            magnitude = magnitude << 1 | coder.bit(self._digits, context, given >> length - 3 & 1)
        rest = max(0, length - 3)
        return magnitude << rest | coder.even_bits(given, rest)
