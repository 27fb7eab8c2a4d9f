"""The bytes of `moments`: symmetric matrices as factors, all else as rows of integers, through a range coder.

After the identifier: the number of bytes that follow, as a variable integer, and the coder's bytes. Symmetric
matrices come first, in order, then all other arrays in order.
"""

import numpy as np

from fedmedclip.protocol.codecs.codec import Decoded
from fedmedclip.protocol.codecs.integer_models import IntegerModel, Integers
from fedmedclip.protocol.codecs.predicted_rows import LARGEST_STEP, SentRows, no_rows
from fedmedclip.protocol.codecs.range_coder import Coder, Decoder, Encoder, FullError
from fedmedclip.protocol.codecs.reader import Reader, variable_integer
from fedmedclip.protocol.codecs.scales import scales_from_bytes, scales_to_bytes
from fedmedclip.protocol.codecs.symmetric_factor import (
    LARGEST_RANK,
    LARGEST_WEIGHT,
    SentFactor,
    no_factor,
)
from fedmedclip.protocol.errors import CodecError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification

IDENTIFIER = 5
MOST_INTEGERS = 1 << 15
"""That a message holds: a bound on a receiver's work."""
LONGEST_VECTOR = 64
"""Values of an array of fewer than two dimensions that is coded finely."""

KINDS = ("counts", "weights", "factors", "steps", "mixtures", "follows", "rows", "vectors")
"""Of integers. Each kind has a model of its own, which learns from arrays in turn."""

Sent = dict[str, SentFactor | SentRows]


def to_bytes(sent: Sent, specification: HeadSpecification, most: int) -> bytes | None:
    """Return the encoded head; None when it takes more than `most` bytes."""
    encoder = Encoder(most - 1 - len(variable_integer(most)))
    try:
        _Coding(encoder).head(specification, sent)
        data = encoder.finish()
    except FullError:
        return None
    return bytes([IDENTIFIER]) + variable_integer(len(data)) + data


def decode(reader: Reader, specification: HeadSpecification) -> Decoded:
    """Return what `to_bytes` made of a head; `reader` stands after the identifier. Raises CodecError."""
    length = reader.variable_integer(4 * specification.size + 4096)
    decoder = Decoder(reader.take(length))
    reader.finish()
    coding = _Coding(decoder)
    sent = coding.head(specification, None)
    decoder.finish()
    return Decoded(expand(sent, specification), coding.streams, 4 + 2 * coding.scales)


def expand(sent: Sent, specification: HeadSpecification) -> NamedArrays:
    """Return the float32 arrays of what is sent. Raises CodecError for a value beyond float32."""
    arrays: NamedArrays = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for tensor in specification.tensors:
            one = sent[tensor.name]
            if isinstance(one, SentFactor):
                values = one.expand()
            else:
                values = one.expand(directions_for(tensor, specification, sent))
            arrays[tensor.name] = values.astype(np.float32).reshape(tensor.shape)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise CodecError("an encoded head has a value that is out of range")
    return arrays


def directions_for(tensor: TensorSpecification, specification: HeadSpecification, sent: Sent) -> Integers:
    """Return what predicts an array: directions (r, columns) of the first symmetric matrix of its width."""
    columns = columns_of(tensor)
    for other in specification.tensors if len(tensor.shape) > 1 else ():
        if other.symmetric and other.shape[0] == columns:
            factor = sent[other.name]
            assert isinstance(factor, SentFactor)
            return factor.rows
    return np.zeros((0, columns), np.int64)


def rows_of_tensor(tensor: TensorSpecification) -> int:
    """Return the number of rows: one of fewer than two dimensions."""
    return tensor.shape[0] if len(tensor.shape) > 1 else 1


def columns_of(tensor: TensorSpecification) -> int:
    """Return the number of values in a row."""
    return tensor.size // max(1, rows_of_tensor(tensor))


class _Coding:
    """One head on its way through a coder; `sent` is None where it is decoded.

    Each method returns what was coded, and raises CodecError for what no encoder writes.
    """

    def __init__(self, coder: Coder) -> None:
        self._coder = coder
        self._models = {kind: IntegerModel() for kind in KINDS}
        self._left = MOST_INTEGERS
        self.scales = 0

    @property
    def streams(self) -> tuple[Integers, ...]:
        """All integers of each kind."""
        return tuple(np.asarray(model.seen, np.int64) for model in self._models.values())

    def head(self, specification: HeadSpecification, sent: Sent | None) -> Sent:
        """Code all arrays, symmetric ones first."""
        coded: Sent = {}
        for tensor in sorted(specification.tensors, key=lambda tensor: not tensor.symmetric):
            given = sent[tensor.name] if sent is not None else None
            if tensor.symmetric:
                coded[tensor.name] = self._factor(tensor, given if isinstance(given, SentFactor) else None)
            else:
                directions = directions_for(tensor, specification, coded)
                rows = given if isinstance(given, SentRows) else None
                coded[tensor.name] = self._rows(tensor, len(directions), rows)
        return coded

    def _factor(self, tensor: TensorSpecification, sent: SentFactor | None) -> SentFactor:
        size = tensor.shape[0]
        sent = sent or no_factor(size)
        scale = self._scale(sent.scale)
        if scale == 0:
            return no_factor(size)
        diagonal = self._scale(abs(sent.diagonal))
        if diagonal and self._coder.even_bits(int(sent.diagonal < 0), 1):
            diagonal = -diagonal
        rank = self._integer("counts", len(sent.weights))
        if not 0 <= rank <= min(LARGEST_RANK, size):
            raise CodecError(
                f"an encoded head has {rank} directions for array {tensor.name!r} of {size} rows"
            )
        weights, rows = np.zeros(rank, np.int64), np.zeros((rank, size), np.int64)
        for direction in range(rank):
            of_it = sent.weights[direction : direction + 1], sent.rows[direction : direction + 1]
            weights[direction] = self._integers("weights", of_it[0], 1)[0]
            rows[direction] = self._integers("factors", of_it[1], size)
        if not ((weights != 0) & (np.abs(weights) <= LARGEST_WEIGHT)).all():
            raise CodecError(f"an encoded head has a weight of array {tensor.name!r} that is out of range")
        return SentFactor(scale, diagonal, weights, rows)

    def _rows(self, tensor: TensorSpecification, directions: int, sent: SentRows | None) -> SentRows:
        rows, columns = rows_of_tensor(tensor), columns_of(tensor)
        nothing = no_rows(rows, columns, directions)
        sent = sent or nothing
        scale = self._scale(sent.scale)
        if scale == 0:
            return nothing
        if len(tensor.shape) < 2:
            kind = "vectors" if tensor.size <= LONGEST_VECTOR else "rows"
            values = self._integers(kind, sent.integers, columns)
            one = np.ones(1, np.int64)
            return SentRows(scale, one, nothing.mixtures, nothing.follows, values.reshape(1, -1))
        coded = SentRows(
            scale, self._steps(rows, sent.steps), nothing.mixtures, nothing.follows, nothing.integers
        )
        for number, row in enumerate(coded.order()):
            coded.mixtures[row] = self._integers("mixtures", sent.mixtures[row], directions)
            if number:
                coded.follows[row] = self._integers("follows", sent.follows[row], 1)[0]
            coded.integers[row] = self._integers("rows", sent.integers[row], columns)
        return coded

    def _steps(self, rows: int, sent: Integers) -> Integers:
        changes = self._integers("steps", np.diff(sent, prepend=0), rows)
        steps = changes.cumsum()
        if not ((steps >= 0) & (steps <= LARGEST_STEP)).all():
            raise CodecError("an encoded head has a step that is out of range")
        return steps

    def _scale(self, scale: np.float32) -> np.float32:
        given = int.from_bytes(scales_to_bytes(np.asarray([scale], np.float32)), "little")
        self.scales += 1
        coded: np.float32 = scales_from_bytes(self._coder.even_bits(given, 16).to_bytes(2, "little"))[0]
        return coded

    def _integer(self, kind: str, integer: int) -> int:
        return int(self._integers(kind, np.asarray([integer]), 1)[0])

    def _integers(self, kind: str, sent: Integers, number: int) -> Integers:
        self._left -= number
        if self._left < 0:
            raise CodecError(f"an encoded head has more than {MOST_INTEGERS} integers")
        given = sent.reshape(-1).tolist() or [0] * number
        return self._models[kind].code_row(self._coder, given)
