"""Which arrays are coded together: a matrix, and the vectors that have one value per row of it.

A vector sent alone would cost as much as a column of the matrix's factors. As a further column of the matrix
it costs one row of the right factor, and what does not lie in the factors' span waits in the residual. What
is measured anew in each round has no residual to wait in, and so each such vector is sent alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.scales import mean_magnitudes
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification

LARGEST_EXPONENT = 60

Floats = npt.NDArray[np.float32]
Exponents = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Group:
    """A matrix of the specification (any array of two or more dimensions, as rows), with its vectors.

    A vector that follows no matrix of as many rows, or is measured, is a group of its own: a matrix of one
    column.
    """

    matrix: TensorSpecification
    vectors: tuple[TensorSpecification, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows: the first dimension."""
        return self.matrix.shape[0] if self.matrix.shape else 1

    @property
    def matrix_columns(self) -> int:
        """Number of columns of the matrix alone."""
        return self.matrix.size // self.rows

    @property
    def columns(self) -> int:
        """Number of columns, the vectors' included."""
        return self.matrix_columns + len(self.vectors)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns


def groups_of(specification: HeadSpecification) -> list[Group]:
    """Return the groups in order; a vector joins the last matrix with as many rows, unless it is measured."""
    groups: list[Group] = []
    for tensor in specification.tensors:
        if len(tensor.shape) < 2 and not tensor.measured:
            for index in reversed(range(len(groups))):
                if len(groups[index].matrix.shape) > 1 and groups[index].rows == tensor.size:
                    groups[index] = Group(groups[index].matrix, (*groups[index].vectors, tensor))
                    break
            else:
                groups.append(Group(tensor))
        else:
            groups.append(Group(tensor))
    return groups


def join(group: Group, arrays: NamedArrays, balanced: bool = True) -> tuple[Floats, Exponents]:
    """Return the group as one matrix (rows, columns), and the vectors' exponents.

    Each vector is multiplied by the power of two that brings its mean magnitude to the matrix's, so that
    statistics of another order of magnitude neither drown the matrix nor drown in it; by 1 when they are not
    to be `balanced`.
    """
    matrix = arrays[group.matrix.name].reshape(group.rows, group.matrix_columns)
    aim = float(mean_magnitudes(matrix.reshape(1, -1))[0])
    columns, exponents = [matrix], []
    for vector in group.vectors:
        values = arrays[vector.name].reshape(-1, 1)
        mean = float(mean_magnitudes(values.reshape(1, -1))[0])
        exponent = _ratio_exponent(aim, mean) if balanced else 0
        columns.append(np.ldexp(values, exponent))
        exponents.append(exponent)
    return np.concatenate(columns, axis=1), np.asarray(exponents, np.int8)


def split(group: Group, values: npt.NDArray[np.float64], exponents: Exponents) -> NamedArrays:
    """Return the float32 arrays of a joined matrix (rows, columns) in float64."""
    columns = group.matrix_columns
    arrays = {group.matrix.name: values[:, :columns].astype(np.float32).reshape(group.matrix.shape)}
    for number, vector in enumerate(group.vectors):
        column = values[:, columns + number] * 2.0 ** -int(exponents[number])
        arrays[vector.name] = column.astype(np.float32).reshape(vector.shape)
    return arrays


def _ratio_exponent(aim: float, mean: float) -> int:
    if aim == 0.0 or mean == 0.0:
        return 0
    exponent = math.frexp(aim / mean)[1] - 1
    return max(-LARGEST_EXPONENT, min(LARGEST_EXPONENT, exponent))
