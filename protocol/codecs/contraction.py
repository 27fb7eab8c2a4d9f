"""Whether an encoding brings a receiver closer: is the energy of what it leaves out below that of its input?

Only then does error feedback converge (Karimireddy et al. 2019, theorem II): with a share delta < 1 left out
each round, the residual's energy stays below that of the deltas times delta / (1 - sqrt(delta))^2.

Encoders decide by these energies, so they are the same on every machine: sums of squares of integers.
"""

import math

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.heads.head import NamedArrays

_MOST_BITS = 26


def energy(values: npt.NDArray[np.floating]) -> float:
    """Return the sum of squares of finite values of any shape, to 2**-10 of it or better up to 2**26 values.

    Values count as integers of so many bits that the squares' sum stays below 2**62, exact in any order.
    """
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    exponent = math.frexp(largest)[1]
    bits = min(_MOST_BITS, (62 - values.size.bit_length()) // 2)
    integers = np.rint(np.ldexp(values.astype(np.float64), bits - exponent)).astype(np.int64).reshape(-1)
    return math.ldexp(float(int(integers @ integers)), 2 * (exponent - bits))


def energy_of(arrays: NamedArrays) -> float:
    """Return the sum of squares of all values of named arrays."""
    return math.fsum(energy(array) for array in arrays.values())
