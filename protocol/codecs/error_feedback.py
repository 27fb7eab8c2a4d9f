"""What a lossy codec left out is kept and added to the next delta, so that nothing is lost for good.

Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019, "Error feedback fixes
SignSGD".
"""

from dataclasses import dataclass

import numpy as np

from fedmedclip.protocol.codecs import Codec, decode_head, encode_head
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import sends_statistics

# Quantisation may give more than went in; after so many times it fits.
_SHRINKINGS = 8


@dataclass(frozen=True)
class Compressed:
    """An encoded delta, what its receiver will decode, and what to keep for the next round.

    `residual` is what was left out, `memory` the encoder's own: both belong in one transaction.
    """

    encoded: bytes
    decoded: NamedArrays
    residual: NamedArrays
    memory: bytes


def compress(
    codec: Codec,
    delta: NamedArrays,
    residual: NamedArrays | None,
    memory: bytes,
    specification: HeadSpecification,
) -> Compressed:
    """Encode `delta` plus the residual of the round before (None: there is none yet).

    decoded + new residual = delta + old residual, up to float32 rounding, but for arrays that are `measured`
    anew in each round, whose residual is 0.
    """
    wanted = delta if residual is None else {name: delta[name] + residual[name] for name in delta}
    encoded = encode_head(codec, wanted, specification, memory)
    decoded = decode_head(encoded.data, specification)
    left_out = {name: wanted[name] - decoded[name] for name in wanted}
    for tensor in specification.tensors:
        if tensor.measured:
            left_out[tensor.name] = np.zeros(tensor.shape, np.float32)
    return Compressed(encoded.data, decoded, left_out, encoded.memory)


def compress_within(
    limit: float,
    codec: Codec,
    delta: NamedArrays,
    residual: NamedArrays | None,
    memory: bytes,
    specification: HeadSpecification,
) -> Compressed:
    """Encode as `compress` does, so that what is decoded has at most the Euclidean norm `limit`.

    A change that is too large is shrunk until it fits, and what is cut off is not owed: it would only be cut
    off again. (Gradient clipping by the norm: Pascanu et al. 2013.)
    """
    made = compress(codec, delta, residual, memory, specification)
    for _ in range(_SHRINKINGS):
        norm = norm_of(made.decoded)
        if norm <= limit:
            break
        factor = np.float32(0.95 * limit / norm)
        delta = {name: array * factor for name, array in delta.items()}
        residual = residual and {name: array * factor for name, array in residual.items()}
        made = compress(codec, delta, residual, memory, specification)
    return made


def norm_of(arrays: NamedArrays) -> float:
    """Return the Euclidean norm of all values together."""
    return float(np.sqrt(sum(float(np.sum(array.astype(np.float64) ** 2)) for array in arrays.values())))


def apply_delta(head: NamedArrays, delta: NamedArrays, specification: HeadSpecification) -> NamedArrays:
    """Return head + delta in float32: the one operation by which every party moves to the next version.

    Values stay at or above their tensor's `lowest`.
    """
    moved: NamedArrays = {}
    for tensor in specification.tensors:
        total = np.add(head[tensor.name], delta[tensor.name], dtype=np.float32)
        moved[tensor.name] = np.maximum(total, np.float32(tensor.lowest))
    return moved


def change_to_send(
    method: str, trained: NamedArrays, head: NamedArrays, residual: NamedArrays | None
) -> NamedArrays:
    """Return what a site's round adds to what it still owes: trained - head, in float32.

    Nothing, when the method sends statistics and they were sent before: the residual is all that is owed.
    """
    if sends_statistics(method) and residual is not None:
        return {name: np.zeros_like(array) for name, array in head.items()}
    return difference(trained, head)


def difference(new: NamedArrays, old: NamedArrays) -> NamedArrays:
    """Return new - old in float32."""
    return {name: np.subtract(new[name], old[name], dtype=np.float32) for name in new}
