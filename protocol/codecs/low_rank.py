"""Each matrix as the product of two thin ones: low rank, integer factors, packing, zstd.

Vectors ride along as further columns of the matrix whose rows they belong to (`groups.py`).

After the identifier: one byte, the bits of the factors' integers; then per group its head (rank; and unless
that is 0: the rows left out, the scale, one weight per column, one exponent per vector); then the wrapped,
packed symbols: per group the left factor (rows that are sent, rank), then the right one (columns, rank), row
by row.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.approximation import Approximation, approximate, approximate_otherwise
from fedmedclip.protocol.codecs.codec import Decoded, Encoded
from fedmedclip.protocol.codecs.container import unwrap, wrap
from fedmedclip.protocol.codecs.dense import IntegerCodec
from fedmedclip.protocol.codecs.groups import LARGEST_EXPONENT, Group, groups_of
from fedmedclip.protocol.codecs.packing import pack, packed_size, unpack, unzigzag, zigzag
from fedmedclip.protocol.codecs.positions import positions_from_bytes, positions_to_bytes
from fedmedclip.protocol.codecs.quantiser import Quantiser
from fedmedclip.protocol.codecs.reader import Reader
from fedmedclip.protocol.codecs.scales import SCALE_BYTES, scales_from_bytes, scales_to_bytes
from fedmedclip.protocol.codecs.sent_group import Integers, SentGroup
from fedmedclip.protocol.codecs.subspace import Grid
from fedmedclip.protocol.errors import CodecError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

IDENTIFIER = 3
LARGEST_RANK = 64
_DENSE_BITS = 4
GRIDS = {2: Grid(0.5, 1), 3: Grid(0.85, 3), 4: Grid(1.8, 7), 8: Grid(30.0, 127)}
"""How finely factors of so many bits are rounded by default. A receiver needs to know the limit alone."""


@dataclass(frozen=True)
class LowRankCodec:
    """Every group of arrays at rank `rank`, or less where it is smaller, in integers of `bits` bits.

    Without a rank the group's size decides (`usual_rank`); `steps` replaces those of `GRIDS`. The encoder's
    memory holds the right factors of the round before: the next round's start there.

    What is left out never has more energy than what was to be sent (`approximation.py`): a head whose factors
    do not help goes as every value in four bits where that takes no more bytes, or else with simpler factors.
    """

    name: str
    rank: int | None
    bits: int
    steps: float | None = None
    carry: float = 1.0

    lossless = False
    whole_head = False

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """See `Codec.encode`."""
        groups = groups_of(specification)
        starts = _recall(memory, groups)
        grid = GRIDS[self.bits] if self.steps is None else Grid(self.steps, GRIDS[self.bits].limit)
        asked = [(group, arrays, self._rank_of(group), grid) for group in groups]
        found = [approximate(*one, start) for one, start in zip(asked, starts, strict=True)]
        encoded = _encoded(found, groups, self.bits)
        if all(one.fair for one in found):
            return encoded
        # Where factors are not thin, every value in four bits takes no more bytes and leaves out a hundredth.
        dense = IntegerCodec(self.name, Quantiser(_DENSE_BITS)).encode(arrays, specification, b"")
        if len(dense.data) <= len(encoded.data):
            return Encoded(dense.data, encoded.memory)
        mended = [
            first if first.fair else approximate_otherwise(*one)
            for first, one in zip(found, asked, strict=True)
        ]
        return _encoded(mended, groups, self.bits)

    def _rank_of(self, group: Group) -> int:
        return min(usual_rank(group) if self.rank is None else self.rank, *group.shape)


def usual_rank(group: Group) -> int:
    """Return the rank for a group's size: 7 for 256 x 256, 5 for 512 x 512, never below 4.

    Smaller arrays get more: their columns cost less, and their training is as rich. Measured in
    `docs/results/bandwidth.md`.
    """
    return max(4, round(112 / math.sqrt((group.rows + group.matrix_columns) / 2)))


def _encoded(found: list[Approximation], groups: list[Group], bits: int) -> Encoded:
    sent = [one.sent for one in found]
    return Encoded(_to_bytes(sent, bits), _remember(sent, groups))


def _to_bytes(sent: list[SentGroup], bits: int) -> bytes:
    heads, integers = [], [np.zeros(0, np.int16)]
    for group in sent:
        heads.append(bytes([group.rank]))
        if group.rank:
            heads += [
                positions_to_bytes(group.off),
                scales_to_bytes(np.asarray([group.scale], np.float32)),
                group.weights.tobytes(),
                group.exponents.tobytes(),
            ]
            integers += [group.left.reshape(-1), group.right.reshape(-1)]
    symbols = wrap(pack(zigzag(np.concatenate(integers)), bits))
    return bytes([IDENTIFIER, bits]) + b"".join(heads) + symbols


def decode(reader: Reader, specification: HeadSpecification) -> Decoded:
    """Return what a low-rank codec encoded; `reader` stands after the identifier. Raises CodecError."""
    bits = reader.byte()
    if bits not in GRIDS:
        raise CodecError(f"an encoded head has factors of {bits} bits")
    groups = groups_of(specification)
    heads = [read_head(reader, group) for group in groups]
    count = sum(head.symbols for head in heads)
    wrapped = reader.rest()
    symbols = unpack(unwrap(wrapped, packed_size(count, bits)), count, bits)
    if symbols.max(initial=0) > 2 * GRIDS[bits].limit:
        raise CodecError(f"an encoded head has an integer that {bits} bits do not hold")
    integers = unzigzag(symbols)
    arrays: NamedArrays = {}
    position = side_bytes = 0
    for group, head in zip(groups, heads, strict=True):
        factors = integers[position : position + head.symbols]
        arrays.update(head.with_factors(group, factors).expand(group))
        position += head.symbols
        side_bytes += head.size
    in_order = {tensor.name: arrays[tensor.name] for tensor in specification.tensors}
    return Decoded(in_order, (symbols,), side_bytes + 3)


@dataclass(frozen=True)
class GroupHead:
    """What stands before a group's factors, in `size` bytes; `symbols` integers belong to it."""

    rank: int
    off: npt.NDArray[np.int64]
    scale: np.float32
    weights: npt.NDArray[np.uint8]
    exponents: npt.NDArray[np.int8]
    symbols: int
    size: int

    def with_factors(self, group: Group, integers: Integers) -> SentGroup:
        """Return the group with the integers of its factors, left and then right."""
        rows = group.rows - len(self.off)
        left = integers[: rows * self.rank].reshape(rows, self.rank)
        right = integers[rows * self.rank :].reshape(group.columns, self.rank)
        return SentGroup(self.off, self.scale, self.weights, self.exponents, left, right)


def read_head(reader: Reader, group: Group) -> GroupHead:
    """Read what stands before the factors of one group. Raises CodecError."""
    rank = reader.byte()
    if rank > min(LARGEST_RANK, group.rows, group.columns):
        raise CodecError(f"an encoded head has rank {rank} for an array of {group.rows} x {group.columns}")
    if rank == 0:
        none = np.zeros(0, np.int64)
        empty = np.zeros(0, np.uint8)
        return GroupHead(0, none, np.float32(0), empty, np.zeros(len(group.vectors), np.int8), 0, 1)
    off, _ = positions_from_bytes(reader, group.rows)
    scale = scales_from_bytes(reader.take(SCALE_BYTES))[0]
    weights = np.frombuffer(reader.take(rank), np.uint8)
    exponents = np.frombuffer(reader.take(len(group.vectors)), np.int8)
    if (np.abs(exponents.astype(np.int16)) > LARGEST_EXPONENT).any():
        raise CodecError("an encoded head has an exponent that is out of range")
    symbols = rank * (group.rows - len(off) + group.columns)
    size = 1 + len(positions_to_bytes(off)) + SCALE_BYTES + rank + len(exponents)
    return GroupHead(rank, off, scale, weights, exponents, symbols, size)


def _remember(sent: list[SentGroup], groups: list[Group]) -> bytes:
    """Return the right factors as int8, preceded by their ranks."""
    ranks = bytes(group.rank for group in sent)
    return ranks + b"".join(group.right.astype(np.int8).tobytes() for group in sent)


def _recall(memory: bytes, groups: list[Group]) -> list[npt.NDArray[np.float64] | None]:
    ranks = memory[: len(groups)]
    expected = len(groups) + sum(rank * group.columns for rank, group in zip(ranks, groups, strict=False))
    if not memory or len(memory) != expected:
        return [None] * len(groups)
    starts: list[npt.NDArray[np.float64] | None] = []
    position = len(groups)
    for rank, group in zip(ranks, groups, strict=True):
        size = rank * group.columns
        factor = np.frombuffer(memory, np.int8, size, position).reshape(group.columns, rank)
        starts.append(factor.T.astype(np.float64) if rank else None)
        position += size
    return starts
