"""A head's arrays to a shorter vector, by a linear map that all sites share, and back.

`dense` sends every value. `subspace` sends a matrix (m, n) as its products with a basis that all know: from
the right with (n, r) in odd rounds, from the left with (r, m) in even ones, so that the left factor of one
broadcast is the basis of the next: the alternating iteration of PowerSGD (Vogels et al. 2019), each half step
of which is linear in the matrix, so that the products of many sites may be summed. A symmetric matrix (n, n)
goes as its products with k directions (n, k), those of the next round being the leading ones of what arrived:
a subspace iteration, too. Its part in the directions alone would never say anything of what lies beside them.

What a projection leaves out, a site owes: error feedback.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification
from fedmedclip.protocol.heads.shared_heads import sends_statistics
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.named_options import NameWithOptions, taken_apart
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.seeds import derive_seed

Doubles = npt.NDArray[np.float64]

_SYMMETRIC_NAMES = frozenset({"scatter"})
"""The arrays that equal their transposes up to rounding, where their specification does not say so."""

# What is left of a direction once those before it are taken off, relative to it, to count as a new one.
_INDEPENDENT = 1e-4


class ProjectionName(NameWithOptions):
    """A projection's name taken apart."""

    kind: ClassVar[str] = "secure codec"


@dataclass(frozen=True)
class LinearCodec:
    """Which projection a plan names; rank and directions are 0 where every value of a matrix is sent."""

    name: str
    rank: int = 0
    directions: int = 0


def linear_codec_named(name: str) -> LinearCodec:
    """Return `dense`, or `subspace` with rank= (3) and directions= (8). Raises InvalidInputError."""
    parsed = ProjectionName(name, *taken_apart(ProjectionName.kind, name, "subspace:rank=3"))
    if parsed.preset not in ("dense", "subspace"):
        raise InvalidInputError(unknown_name(ProjectionName.kind, parsed.preset, ("dense", "subspace")))
    codec = LinearCodec(name)
    if parsed.preset == "subspace":
        rank = parsed.take_integer("rank", 3, range(1, 257))
        codec = LinearCodec(name, rank, parsed.take_integer("directions", 8, range(1, 1025)))
    parsed.finish()
    return codec


def linear_codec_of(plan: Plan) -> LinearCodec:
    """Return the codec of a plan with `secure`. Statistics are owed once, so that no matrix of a method that
    sends them is spread over rounds, but for symmetric ones.
    """
    assert plan.secure is not None
    codec = linear_codec_named(plan.secure.codec)
    return replace(codec, rank=0) if sends_statistics(plan.method) else codec


@dataclass(frozen=True)
class Shared:
    """What all sites of a round know, and take their bases from.

    `head` is the version that they train from, `delta` the difference by which it came (None where it came
    without), `start` the directions to begin with, in rows (k, D), and `seed` the run's.
    """

    round_number: int
    seed: int
    head: NamedArrays
    delta: NamedArrays | None = None
    start: npt.NDArray[np.float32] | None = None


class _Part(Protocol):
    """How one array travels: as `size` numbers."""

    @property
    def size(self) -> int: ...
    def apply(self, array: Doubles) -> Doubles: ...
    def lift(self, values: Doubles) -> Doubles: ...


@dataclass(frozen=True)
class _Whole:
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def apply(self, array: Doubles) -> Doubles:
        return array.reshape(-1)

    def lift(self, values: Doubles) -> Doubles:
        return values.reshape(self.shape)


@dataclass(frozen=True)
class _FromTheRight:
    """matrix (m, n) @ basis (n, r)."""

    basis: Doubles
    rows: int

    @property
    def size(self) -> int:
        return self.rows * int(self.basis.shape[1])

    def apply(self, array: Doubles) -> Doubles:
        return (array @ self.basis).reshape(-1)

    def lift(self, values: Doubles) -> Doubles:
        lifted: Doubles = values.reshape(self.rows, -1) @ self.basis.T
        return lifted


@dataclass(frozen=True)
class _FromTheLeft:
    """basis.T (r, m) @ matrix (m, n)."""

    basis: Doubles
    columns: int

    @property
    def size(self) -> int:
        return int(self.basis.shape[1]) * self.columns

    def apply(self, array: Doubles) -> Doubles:
        return (self.basis.T @ array).reshape(-1)

    def lift(self, values: Doubles) -> Doubles:
        lifted: Doubles = self.basis @ values.reshape(-1, self.columns)
        return lifted


@dataclass(frozen=True)
class _Triangle:
    """The upper triangle of a symmetric matrix (n, n), row by row."""

    order: int

    @property
    def size(self) -> int:
        return self.order * (self.order + 1) // 2

    def apply(self, array: Doubles) -> Doubles:
        triangle: Doubles = ((array + array.T) / 2)[np.triu_indices(self.order)]
        return triangle

    def lift(self, values: Doubles) -> Doubles:
        square = np.zeros((self.order, self.order))
        square[np.triu_indices(self.order)] = values
        symmetric: Doubles = np.triu(square) + np.triu(square, 1).T
        return symmetric


@dataclass(frozen=True)
class _SymmetricProducts:
    """matrix @ basis (n, k) of a symmetric matrix (n, n).

    Lifted it is the symmetric matrix nearest to zero with these products: all of the matrix but its part
    orthogonal to the basis on both sides.
    """

    basis: Doubles

    @property
    def size(self) -> int:
        return self.basis.size

    def apply(self, array: Doubles) -> Doubles:
        products: Doubles = (array + array.T) / 2 @ self.basis
        return products.reshape(-1)

    def lift(self, values: Doubles) -> Doubles:
        products = values.reshape(self.basis.shape)
        inner = self.basis.T @ products
        half = (products - self.basis @ (inner + inner.T) / 4) @ self.basis.T
        # A sum with its own transpose is symmetric bit by bit, in whatever order a product was summed.
        symmetric: Doubles = half + half.T
        return symmetric


class Projection:
    """The linear map of one round: `apply` gives float64 (`length`,), `lift` arrays of such a vector."""

    def __init__(self, tensors: Sequence[TensorSpecification], parts: Sequence[_Part]) -> None:
        self._tensors, self._parts = tensors, parts
        self.sizes = tuple(part.size for part in parts)
        """How many numbers each array takes, in the specification's order."""
        self.length = sum(self.sizes)

    def apply(self, arrays: NamedArrays) -> Doubles:
        """Return what is sent of arrays."""
        pairs = zip(self._tensors, self._parts, strict=True)
        return np.concatenate([part.apply(arrays[tensor.name].astype(np.float64)) for tensor, part in pairs])

    def lift(self, vector: Doubles) -> NamedArrays:
        """Return the float32 arrays that a vector stands for."""
        arrays: NamedArrays = {}
        position = 0
        for tensor, part in zip(self._tensors, self._parts, strict=True):
            taken = vector[position : position + part.size]
            arrays[tensor.name] = part.lift(taken).astype(np.float32).reshape(tensor.shape)
            position += part.size
        return arrays


def projection_of(codec: LinearCodec, specification: HeadSpecification, shared: Shared) -> Projection:
    """Return the map of a round.

    Arrays that each round measures anew are sent whole: nobody owes what is left out of them.
    """
    parts = [_part_of(codec, tensor, index, shared) for index, tensor in enumerate(specification.tensors)]
    return Projection(specification.tensors, parts)


def _part_of(codec: LinearCodec, tensor: TensorSpecification, index: int, shared: Shared) -> _Part:
    if len(tensor.shape) != 2:
        return _Whole(tensor.shape)
    rows, columns = tensor.shape
    if tensor.symmetric or tensor.name in _SYMMETRIC_NAMES:
        # From half as many directions as rows on, the whole triangle takes no more numbers.
        if not 0 < 2 * codec.directions <= rows:
            return _Triangle(rows)
        return _SymmetricProducts(_directions(codec.directions, tensor, index, shared))
    if tensor.measured or not 0 < codec.rank <= min(rows, columns) // 4:
        return _Whole(tensor.shape)
    last = None if shared.delta is None else shared.delta[tensor.name].astype(np.float64)
    if shared.round_number % 2:
        return _FromTheRight(
            _basis_of(None if last is None else last.T, columns, codec.rank, index, shared), rows
        )
    return _FromTheLeft(_basis_of(last, rows, codec.rank, index, shared), columns)


def _basis_of(last: Doubles | None, size: int, rank: int, index: int, shared: Shared) -> Doubles:
    """Return a basis (size, rank) of the columns of `last` (size, n), filled up with drawn directions."""
    candidates = [] if last is None else [last @ _drawn(shared, index, last.shape[1], 2 * rank)]
    return _orthonormal([*candidates, _drawn(shared, index, size, rank)], rank)


def _directions(count: int, tensor: TensorSpecification, index: int, shared: Shared) -> Doubles:
    """Return the leading directions (n, count) of the symmetric matrix in the head that all hold."""
    size = tensor.shape[0]
    matrix = shared.head[tensor.name].astype(np.float64)
    drawn = _drawn(shared, index, size, count)
    begin = (
        [] if shared.start is None or shared.start.shape[1] != size else [shared.start.T.astype(np.float64)]
    )
    return _orthonormal([matrix @ (matrix @ drawn), *begin, drawn], count)


def _orthonormal(candidates: Sequence[Doubles], count: int) -> Doubles:
    """Return the first `count` independent columns of all candidates (n, ...) as an orthonormal basis.

    Whatever an order of summation changes in the last bits of the candidates is far below what counts as
    independent, so that every machine comes to the same basis but for such bits.
    """
    found: list[Doubles] = []
    for column in np.concatenate(candidates, axis=1).T:
        length = np.linalg.norm(column)
        rest = column.copy()
        for _ in range(2):
            for direction in found:
                rest -= direction * float(direction @ rest)
        left = np.linalg.norm(rest)
        if length > 0 and left > _INDEPENDENT * length:
            found.append(rest / left)
        if len(found) == count:
            break
    return np.array(found).T


def _drawn(shared: Shared, index: int, size: int, count: int) -> Doubles:
    seed = derive_seed(shared.seed, round_number=shared.round_number, purpose=f"secure basis {index}")
    bits = np.random.Philox(key=[seed, 0]).random_raw(size * count)
    drawn: Doubles = (bits >> np.uint64(11)).astype(np.float64).reshape(size, count) * 2.0**-52 - 1.0
    return drawn
