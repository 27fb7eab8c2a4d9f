"""Statistics in one message: as precise as a budget of bytes holds, all arrays alike.

One number, the unit, says how coarse everything is rounded: a matrix's rows in steps of it times the root of
their size (`predicted_rows.py`), the directions of a symmetric matrix in steps of about as much
(`symmetric_factor.py`), which also says how many there are. Both are in proportion to the error that the
statistics of a few hundred images have themselves. The smallest unit that fits the budget is sought. The few
values of small vectors are sent nearly exactly.

A head with many other values than statistics have goes as `auto` sends it.
"""

import logging
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs import predicted_rows, symmetric_factor
from fedmedclip.protocol.codecs.automatic import AutomaticCodec
from fedmedclip.protocol.codecs.codec import Encoded
from fedmedclip.protocol.codecs.eigen_directions import Directions, leading_directions
from fedmedclip.protocol.codecs.integer_models import LARGEST_INTEGER
from fedmedclip.protocol.codecs.moments_format import (
    LONGEST_VECTOR,
    MOST_INTEGERS,
    Sent,
    columns_of,
    directions_for,
    rows_of_tensor,
    to_bytes,
)
from fedmedclip.protocol.codecs.predicted_rows import SentRows, no_rows, root_sizes, rows_of
from fedmedclip.protocol.codecs.scales import round_scales
from fedmedclip.protocol.codecs.spending import share_and_peak
from fedmedclip.protocol.codecs.symmetric_factor import LARGEST_RANK, factor_of
from fedmedclip.protocol.envelope import OVERHEAD_BYTES
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification

log = logging.getLogger("fedmedclip.codec")

DEFAULT_BUDGET = 1460
"""Bytes of a message: what a TCP segment holds on Ethernet."""
_MOST_VALUES = MOST_INTEGERS // 2
# The largest integers of small vectors: as many as fit, should a budget be that small.
_VECTOR_LIMITS = (1023, 127, 15, 1)
_GRADES_PER_OCTAVE = 32
_GRADES = 12 * _GRADES_PER_OCTAVE

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MomentsCodec:
    """Messages of at most `budget` bytes, `OVERHEAD_BYTES` of each for the envelope.

    The memory is the peak of the mean magnitudes so far (`spending.py`), or that of `auto`.
    """

    name: str
    budget: int
    carry: float = 1.0

    lossless = False
    whole_head = False

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`. Raises HeadError when the budget does not hold even an empty update."""
        others = sum(tensor.size for tensor in specification.tensors if not tensor.symmetric)
        if others > _MOST_VALUES:
            return AutomaticCodec(self.name, self.budget, self.carry).encode(arrays, specification, memory)
        limit = self.budget - OVERHEAD_BYTES
        share, peak = share_and_peak(arrays, specification, memory)
        material = _Material(arrays, specification, limit)
        for target in (int(limit * share), limit):
            for vector_limit in _VECTOR_LIMITS:
                encoded = material.finest(target, vector_limit)
                if encoded is not None:
                    log.info("%s: %d bytes, at %.0f %% of the budget", self.name, len(encoded), 100 * share)
                    return Encoded(encoded, peak)
        raise HeadError(f"codec {self.name!r}: not even an empty update fits; state a larger budget")


class _Material:
    """What does not depend on the unit: the arrays, and the directions of symmetric ones."""

    def __init__(self, arrays: NamedArrays, specification: HeadSpecification, limit: int) -> None:
        self._specification = specification
        self._matrices: dict[str, Floats] = {}
        self._directions: dict[str, Directions] = {}
        units = [0.0]
        for tensor in specification.tensors:
            matrix = arrays[tensor.name].reshape(rows_of_tensor(tensor), columns_of(tensor))
            if tensor.symmetric:
                matrix = (matrix + matrix.T) * np.float32(0.5)
                # A direction that is worth sending takes more than a bit a value.
                number = min(LARGEST_RANK, len(matrix), 8 * limit // len(matrix) + 1)
                self._directions[tensor.name] = leading_directions(matrix, number)
                units.append(symmetric_factor.coarsest_unit(self._directions[tensor.name]))
            elif not _is_fine(tensor):
                units.append(predicted_rows.coarsest_unit(matrix))
            self._matrices[tensor.name] = matrix
        self._coarsest = max(units)

    def finest(self, target: int, vector_limit: int) -> bytes | None:
        """Return the encoded head of the smallest unit that takes at most `target` bytes; None if none."""
        best, fits, too_fine = self._encoded(0, vector_limit, target), 0, _GRADES + 1
        while best is not None and too_fine - fits > 1:
            grade = (fits + too_fine) // 2
            encoded = self._encoded(grade, vector_limit, target)
            if encoded is None:
                too_fine = grade
            else:
                best, fits = encoded, grade
        return best

    def _encoded(self, grade: int, vector_limit: int, target: int) -> bytes | None:
        octave, place = divmod(grade, _GRADES_PER_OCTAVE)
        unit = math.ldexp(self._coarsest * (2 - place / _GRADES_PER_OCTAVE), -octave)
        sent: Sent = {}
        for tensor in sorted(self._specification.tensors, key=lambda tensor: not tensor.symmetric):
            matrix = self._matrices[tensor.name]
            if tensor.symmetric:
                sent[tensor.name] = factor_of(matrix, self._directions[tensor.name], unit)
            elif _is_fine(tensor):
                largest = np.abs(matrix).max(initial=np.float32(0))
                sent[tensor.name] = _one_row(matrix, largest / np.float32(vector_limit))
            elif len(tensor.shape) < 2:
                sent[tensor.name] = _one_row(matrix, np.float32(unit * root_sizes(matrix)[0]))
            else:
                directions = directions_for(tensor, self._specification, sent)
                sent[tensor.name] = rows_of(matrix, directions, unit)
        return to_bytes(sent, self._specification, target)


def _is_fine(tensor: TensorSpecification) -> bool:
    return len(tensor.shape) < 2 and tensor.size <= LONGEST_VECTOR


def _one_row(values: Floats, step: np.float32) -> SentRows:
    """Return one row of integers, in steps rounded up to a scale."""
    scale = round_scales(np.asarray([step], np.float32))[0]
    nothing = no_rows(1, values.size, 0)
    if scale == 0:
        return nothing
    integers = np.clip(np.rint(values / scale), -LARGEST_INTEGER, LARGEST_INTEGER).astype(np.int64)
    return SentRows(scale, np.ones(1, np.int64), nothing.mixtures, nothing.follows, integers)
