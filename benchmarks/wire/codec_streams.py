"""Each entropy-coded stream of an encoded head beside its own order-0 entropy.

A stream that lies alone in its wrapped content counts with the bytes of that content, its frame and tables
included. One that shares a content with others counts with what the content grows by through it, its share
of those tables included.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs import dense, low_rank, sparse
from fedmedclip.protocol.codecs.container import unwrap, wrap
from fedmedclip.protocol.codecs.groups import groups_of
from fedmedclip.protocol.codecs.packing import largest_packed_size, pack, packed_size, unpack
from fedmedclip.protocol.codecs.positions import positions_from_bytes, positions_to_bytes
from fedmedclip.protocol.codecs.reader import Reader
from fedmedclip.protocol.codecs.scales import SCALE_BYTES
from fedmedclip.protocol.heads.head import HeadSpecification

Symbols = npt.NDArray[np.integer]

TABLE_HEAD = (
    "| codec | stream | symbols | bytes | order-0 entropy, bytes | above it |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Stream:
    """`count` symbols of an encoded head, the bytes that they take in it, and their entropy in bytes."""

    name: str
    count: int
    size: int
    entropy: float


def table_rows(codec: str, messages: list[bytes], specification: HeadSpecification) -> str:
    """Return one line for each stream of a codec's encoded heads: means over them."""
    found: dict[str, list[Stream]] = defaultdict(list)
    for message in messages:
        for stream in streams(message, specification):
            found[stream.name].append(stream)
    lines = []
    for name, same in found.items():
        count, size, entropy = (
            sum(values) / len(messages)
            for values in zip(*((item.count, item.size, item.entropy) for item in same), strict=True)
        )
        above = f"{100 * (size / entropy - 1):+.1f} %"
        lines.append(f"| {codec} | {name} | {count:,.0f} | {size:,.0f} | {entropy:,.0f} | {above} |")
    return "\n".join(lines)


def streams(message: bytes, specification: HeadSpecification) -> Iterator[Stream]:
    """Yield the streams of an encoded head, of any codec for deltas."""
    reader = Reader(message)
    match reader.byte():
        case dense.IDENTIFIER:
            yield from _dense(reader, specification)
        case sparse.IDENTIFIER:
            yield from _sparse(reader, specification)
        case low_rank.IDENTIFIER:
            yield from _low_rank(reader, specification)


def _dense(reader: Reader, specification: HeadSpecification) -> Iterator[Stream]:
    bits = reader.byte() % 128
    if bits >= 16:
        content = unwrap(reader.rest(), specification.size * bits // 8)
        planes = np.frombuffer(content, np.uint8).reshape(bits // 8, -1)
        yield from _sharing({f"byte plane {number}": plane for number, plane in enumerate(planes, 1)}, 8)
        return
    scale_bytes = SCALE_BYTES * sum(
        tensor.shape[0] if len(tensor.shape) > 1 else 1 for tensor in specification.tensors
    )
    content = unwrap(reader.rest(), scale_bytes + largest_packed_size(specification.size, bits))
    symbols = unpack(content[scale_bytes:], specification.size, bits)
    thin = np.concatenate([np.full(tensor.size, len(tensor.shape) < 2) for tensor in specification.tensors])
    values = "signs" if bits == 1 else "quantised values"
    parts = {f"{values}, matrices": symbols[~thin], f"{values}, 1-D tensors": symbols[thin]}
    yield from _sharing(parts, bits, content[:scale_bytes])


def _sparse(reader: Reader, specification: HeadSpecification) -> Iterator[Stream]:
    bits = reader.byte()
    positions, lengths = positions_from_bytes(reader, specification.size)
    gaps = np.diff(positions, prepend=-1)
    digit_bytes = -(-int(lengths.sum(dtype=np.int64)) // 8)
    size = len(positions_to_bytes(positions))
    yield Stream("lengths of gaps", len(gaps), size - digit_bytes, _entropy(lengths))
    # The gaps themselves as symbols, whatever makes bytes of them.
    yield Stream("gaps, lengths and digits", len(gaps), size, _entropy(gaps))
    reader.take(SCALE_BYTES * len(specification.tensors))
    wrapped = reader.rest()
    symbols = unpack(unwrap(wrapped, packed_size(len(gaps), bits)), len(gaps), bits)
    yield Stream("signs" if bits == 1 else "quantised values", len(symbols), len(wrapped), _entropy(symbols))


def _low_rank(reader: Reader, specification: HeadSpecification) -> Iterator[Stream]:
    bits = reader.byte()
    groups = groups_of(specification)
    heads = [low_rank.read_head(reader, group) for group in groups]
    count = sum(head.symbols for head in heads)
    wrapped = reader.rest()
    symbols = unpack(unwrap(wrapped, packed_size(count, bits)), count, bits)
    yield Stream("both factors", count, len(wrapped), _entropy(symbols))
    owners, layout = [], ("left factors", "right factors, matrices", "right factors, 1-D tensors")
    for group, head in zip(groups, heads, strict=True):
        rows = (group.rows - len(head.off), group.matrix_columns, len(group.vectors))
        owners.append(np.repeat(np.arange(3), np.multiply(rows, head.rank)))
    owner = np.concatenate(owners)
    yield from _sharing({name: symbols[owner == number] for number, name in enumerate(layout)}, bits)


def _sharing(parts: dict[str, Symbols], bits: int, before: bytes = b"") -> Iterator[Stream]:
    """Yield the streams of one content: each with what the content is larger by than without it."""

    def size(chosen: list[Symbols]) -> int:
        return len(wrap(before + pack(np.concatenate(chosen), bits)))

    whole = size(list(parts.values()))
    for name, symbols in parts.items():
        others = [part for other, part in parts.items() if other != name]
        yield Stream(name, len(symbols), whole - size(others), _entropy(symbols))


def _entropy(symbols: Symbols) -> float:
    """Return the empirical order-0 entropy of all symbols together, in bytes."""
    counts = np.unique(symbols, return_counts=True)[1]
    shares = counts / len(symbols)
    return float(-(counts * np.log2(shares)).sum()) / 8
