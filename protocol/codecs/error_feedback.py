"""What a lossy codec left out is kept and added to the next delta, so that nothing is lost for good.

Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019, "Error feedback fixes
SignSGD".
"""

import logging
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs import Codec, codec_named, decode_head, encode_head
from fedmedclip.protocol.codecs.contraction import energy_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification
from fedmedclip.protocol.heads.shared_heads import sends_statistics

Floats = npt.NDArray[np.float32]

log = logging.getLogger("fedmedclip.codec")
_ALWAYS_CONTRACTING = "int8"
# Quantisation may give more than went in; after so many times it fits.
_SHRINKINGS = 8


@dataclass(frozen=True)
class Compressed:
    """An encoded delta, what its receiver will decode, and what to keep for the next round.

    `residual` is what was left out, `memory` the encoder's own: both belong in one transaction.
    Euclidean norms: `delta_norm` of this round's delta, `wanted_norm` of what was to be sent, the residual of
    before included, `left_out_norm` of what the receiver does not get of it.
    """

    encoded: bytes
    decoded: NamedArrays
    residual: NamedArrays
    memory: bytes
    delta_norm: float
    wanted_norm: float
    left_out_norm: float

    @property
    def residual_share(self) -> float:
        """Of the norm of what was to be sent, what was left out: 0 is everything sent, 1 nothing."""
        return self.left_out_norm / self.wanted_norm if self.wanted_norm else 0.0


def compress(
    codec: Codec,
    delta: NamedArrays,
    residual: NamedArrays | None,
    memory: bytes,
    specification: HeadSpecification,
) -> Compressed:
    """Encode `delta` plus the residual of the round before (None: there is none yet).

    decoded + new residual = delta + old residual, up to float32 rounding, but for arrays that are `measured`
    anew in each round, whose residual is 0, and for what a codec changed in only one half of a symmetric one.

    A codec with a `carry` below 1 adds only that share of the old residual, but all of it to an array whose
    delta is zero: where nothing new was learnt, all of it is still wanted.

    Our codecs never leave out more energy than there is. One from elsewhere that does, so that residuals
    would grow without bound, is replaced by `int8` in this round, and keeps its memory.
    """
    wanted = what_to_send(codec, delta, residual)
    encoded = encode_head(codec, wanted, specification, memory)
    decoded = decode_head(encoded.data, specification)
    missing = difference(wanted, decoded)
    wanted_energy, missing_energy = energy_of(wanted), energy_of(missing)
    if missing_energy > wanted_energy and codec.name != _ALWAYS_CONTRACTING:
        log.warning(
            "codec %s leaves out more than there is to send; this round goes as %s",
            codec.name,
            _ALWAYS_CONTRACTING,
        )
        mended = compress(codec_named(_ALWAYS_CONTRACTING), delta, residual, b"", specification)
        return replace(mended, memory=encoded.memory)
    for tensor in specification.tensors:
        missing[tensor.name] = _of_its_kind(tensor, missing[tensor.name])
        if tensor.measured:
            missing[tensor.name] = np.zeros(tensor.shape, np.float32)
    norms = map(math.sqrt, (energy_of(delta), wanted_energy, missing_energy))
    return Compressed(encoded.data, decoded, missing, encoded.memory, *norms)


def what_to_send(codec: Codec, delta: NamedArrays, residual: NamedArrays | None) -> NamedArrays:
    """Return this round's delta and what the codec carries of the old residual, in float32."""
    if residual is None:
        return delta
    carry = np.float32(codec.carry)
    return {
        name: array + (carry * residual[name] if codec.carry < 1 and array.any() else residual[name])
        for name, array in delta.items()
    }


def require_carrying_codec(method: str, downlink: str) -> None:
    """Raise InvalidInputError for a downlink that forgets what a method sends once only: statistics."""
    if codec_named(downlink).carry < 1 and sends_statistics(method):
        raise InvalidInputError(
            f"downlink_codec: {downlink!r} forgets a part of what it leaves out, and method {method!r} sends "
            "its statistics once; leave carry out"
        )


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


def within_norm(arrays: NamedArrays, limit: float) -> NamedArrays:
    """Return arrays whose Euclidean norm is at most `limit`: shortened where they are longer."""
    norm = norm_of(arrays)
    if norm <= limit:
        return arrays
    return {name: array * np.float32(limit / norm) for name, array in arrays.items()}


def apply_delta(head: NamedArrays, delta: NamedArrays, specification: HeadSpecification) -> NamedArrays:
    """Return head + delta in float32: the one operation by which every party moves to the next version.

    Values stay at or above their tensor's `lowest`, and a symmetric array stays so bit by bit, whatever a
    lossy codec made of its delta.
    """
    moved: NamedArrays = {}
    for tensor in specification.tensors:
        total = np.add(head[tensor.name], _of_its_kind(tensor, delta[tensor.name]), dtype=np.float32)
        moved[tensor.name] = np.maximum(total, np.float32(tensor.lowest))
    return moved


def _of_its_kind(tensor: TensorSpecification, array: Floats) -> Floats:
    """Return an array, or of one that is to be symmetric the symmetric part: its mean with its transpose."""
    if not tensor.symmetric:
        return array
    half = np.float32(0.5)
    # + 0.0 makes negative zeros positive, so that both halves have the same bits.
    symmetric: Floats = np.where(array == array.T, array, half * array + half * array.T) + np.float32(0)
    return symmetric


def change_to_send(
    method: str,
    trained: NamedArrays,
    head: NamedArrays,
    residual: NamedArrays | None,
    specification: HeadSpecification,
) -> NamedArrays:
    """Return what a site's round adds to what it still owes: trained - head, in float32.

    When the method sends statistics and they were sent before, only of what is `measured` anew in each round:
    of the rest the residual is all that is owed.
    """
    change = difference(trained, head)
    if sends_statistics(method) and residual is not None:
        for tensor in specification.tensors:
            if not tensor.measured:
                change[tensor.name] = np.zeros(tensor.shape, np.float32)
    return change


def difference(new: NamedArrays, old: NamedArrays) -> NamedArrays:
    """Return new - old in float32."""
    return {name: np.subtract(new[name], old[name], dtype=np.float32) for name in new}
