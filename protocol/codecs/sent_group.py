"""What low rank sends of a group of arrays, and what a receiver makes of it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.groups import Group, split
from fedmedclip.protocol.errors import CodecError
from fedmedclip.protocol.heads.head import NamedArrays

Integers = npt.NDArray[np.int16]


@dataclass(frozen=True)
class SentGroup:
    """What is sent of a group: scale * left @ diag(weights) @ right.T in the rows that are not `off`.

    `left` (rows - off, r) and `right` (columns, r) int16, `weights` (r,) in 1..255, `exponents` (vectors,):
    vector v was multiplied by 2**exponent before it became a column.
    """

    off: npt.NDArray[np.int64]
    scale: np.float32
    weights: npt.NDArray[np.uint8]
    exponents: npt.NDArray[np.int8]
    left: Integers
    right: Integers

    @property
    def rank(self) -> int:
        """Number of columns of the factors."""
        return len(self.weights)

    def expand(self, group: Group) -> NamedArrays:
        """Multiply the factors: products and sums of integers below 2**53, then one rounding.

        Raises CodecError for a value beyond float32.
        """
        weighted = self.right.astype(np.float64) * self.weights.astype(np.float64)
        values: npt.NDArray[np.float64] = self.left.astype(np.float64) @ weighted.T
        values *= np.float64(self.scale)
        # A sum of negative zeros is a negative zero for some BLAS only; + 0.0 makes it positive for all.
        values += 0.0
        if len(self.off):
            on = np.ones(group.rows, bool)
            on[self.off] = False
            sent, values = values, np.zeros((group.rows, group.columns))
            values[on] = sent
        with np.errstate(over="ignore"):
            arrays = split(group, values, self.exponents)
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise CodecError("an encoded head has a value that is out of range")
        return arrays


def nothing(group: Group) -> SentGroup:
    """Return what says that a group is zero: rank 0."""
    return SentGroup(
        np.zeros(0, np.int64),
        np.float32(0),
        np.zeros(0, np.uint8),
        np.zeros(len(group.vectors), np.int8),
        np.zeros((group.rows, 0), np.int16),
        np.zeros((group.columns, 0), np.int16),
    )
