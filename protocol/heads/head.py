"""What a head is to everyone who handles one: named float32 arrays under a specification."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import HeadError

NamedArrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class TensorSpecification:
    """Name and shape of one float32 array, and how it starts.

    `initial_bound` is the half-width of the uniform distribution that the first values are drawn from;
    0 means that they all equal `initial_value`. No value is ever below `lowest`: `apply_delta` sees to that,
    so that a delta from a lossy codec cannot make a batch norm's running variance negative. `measured` says
    that each round measures the array anew instead of moving it on: its next difference holds what a lossy
    codec left out, so error feedback would count that twice and `compress` keeps no residual of it. An
    update counts for at most `largest_change` in each value where updates are averaged, however large it is:
    whoever lies about a number of a known range moves it by no more than its share of that range. A
    `symmetric` array is a square matrix that equals its transpose bit by bit in every version, from version 0
    on, where all values are equal.

    Raises ValueError for a `symmetric` array of another shape or with drawn values.
    """

    name: str
    shape: tuple[int, ...]
    initial_bound: float = 0.0
    initial_value: float = 0.0
    lowest: float = -math.inf
    measured: bool = False
    largest_change: float = math.inf
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.symmetric and (len(self.shape) != 2 or self.shape[0] != self.shape[1] or self.initial_bound):
            raise ValueError(
                f"array {self.name!r} of shape {self.shape} is not square or is drawn: not symmetric"
            )

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class HeadSpecification:
    """The arrays of a head, in the order in which they are encoded and hashed."""

    tensors: tuple[TensorSpecification, ...]

    @property
    def size(self) -> int:
        """Number of float32 values in the whole head."""
        return sum(tensor.size for tensor in self.tensors)

    def check(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Raise HeadError unless names, shapes and dtypes match and every value is finite."""
        expected = [tensor.name for tensor in self.tensors]
        if sorted(arrays) != sorted(expected):
            raise HeadError(
                f"the head has arrays {sorted(arrays)}, expected {sorted(expected)}; "
                "it was made by another method or version"
            )
        for tensor in self.tensors:
            array = arrays[tensor.name]
            if array.shape != tensor.shape or array.dtype != np.float32:
                raise HeadError(
                    f"array {tensor.name!r} is {array.dtype} {array.shape}, expected float32 {tensor.shape}"
                )
            if not np.isfinite(array).all():
                raise HeadError(f"array {tensor.name!r} has a NaN or infinite value")

    def initial(self, seed: int) -> NamedArrays:
        """Return version 0 of the head: the same float32 values from the same seed on every machine.

        Draws come from numpy's Philox counter-based generator, whose stream is fixed by NEP 19 for a
        named bit generator; each tensor uses its own stream.
        """
        arrays: NamedArrays = {}
        for index, tensor in enumerate(self.tensors):
            bits = np.random.Philox(key=[seed, index]).random_raw(tensor.size)
            unit = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
            values = unit * np.float32(tensor.initial_bound) + np.float32(tensor.initial_value)
            arrays[tensor.name] = values.reshape(tensor.shape)
        return arrays

    def to_bytes(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
        """Return the values as little-endian float32 in the specification's order, for storage."""
        return b"".join(np.asarray(arrays[tensor.name], dtype="<f4").tobytes() for tensor in self.tensors)

    def from_bytes(self, stored: bytes) -> NamedArrays:
        """Return the arrays that `to_bytes` stored. Raises HeadError when the length does not fit."""
        if len(stored) != 4 * self.size:
            raise HeadError(
                f"a stored head has {len(stored)} bytes, expected {4 * self.size}; it is of another method "
                "or version of it: go on with the fedmedclip that stored it, or begin with an empty state"
            )
        values = np.frombuffer(stored, dtype="<f4").astype(np.float32)
        arrays: NamedArrays = {}
        position = 0
        for tensor in self.tensors:
            arrays[tensor.name] = values[position : position + tensor.size].reshape(tensor.shape)
            position += tensor.size
        return arrays


def head_digest(head: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """Return the SHA-256 of a head: 32 bytes that are equal exactly when the heads are bit-identical.

    Hashed per array, in the order of the names: name length and name, number of dimensions, dimensions
    (all 32-bit little-endian), then the values as little-endian float32.
    """
    digest = hashlib.sha256()
    for name in sorted(head):
        array = np.asarray(head[name], dtype="<f4")
        encoded = name.encode()
        numbers = (len(encoded), array.ndim, *array.shape)
        digest.update(np.asarray(numbers, dtype="<u4").tobytes() + encoded + array.tobytes())
    return digest.digest()
