"""Whether an encoding brings a receiver closer: is the energy of what it leaves out below that of its input?

Only then does error feedback converge (Karimireddy et al. 2019, theorem II): with a share delta < 1 left out
each round, the residual's energy stays below that of the deltas times delta / (1 - sqrt(delta))^2.

Encoders decide by these energies, so they are the same on every machine: sums of squares of integers.
"""

import math

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.heads.head import NamedArrays

_BITS = 19
# So many squares of integers up to 2**19 sum to at most 2**52.
_PART = 1 << 14


def energy(values: npt.NDArray[np.float32]) -> float:
    """Return the sum of squares of finite values of any shape, to 2**-14 of it or better up to 2**26 values.

    Values count as integers of 19 bits, in parts so small that float64 sums their squares exactly.
    """
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    exponent = math.frexp(largest)[1] - _BITS
    flat = values.reshape(-1)
    sums = []
    for start in range(0, flat.size, _PART):
        integers = np.rint(np.ldexp(flat[start : start + _PART], -exponent)).astype(np.float64)
        sums.append(float(integers @ integers))
    return math.ldexp(math.fsum(sums), 2 * exponent)


def energy_of(arrays: NamedArrays) -> float:
    """Return the sum of squares of all values of named arrays."""
    return math.fsum(energy(array) for array in arrays.values())
