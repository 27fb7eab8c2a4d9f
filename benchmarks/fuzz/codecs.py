"""Encoded heads: every codec, also behind the compressor; and the compressor's own layer.

An input is one byte for the head's specification and then sections: bytes as they are, bytes that are wrapped
as a codec wraps them (zstd), wrapped with their size before them, a zlib stream, or bytes with their number
before them.
"""

import zlib
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.fuzz.examples import golden, golden_file, specification_of, specifications
from benchmarks.fuzz.mutations import after, by_section, mutated_bytes
from benchmarks.fuzz.sections import Section, join, split
from benchmarks.fuzz.target import Target, always
from fedmedclip.protocol.codecs import codec_named, decode_delta, decode_head, encode_head
from fedmedclip.protocol.codecs.codec import Codec
from fedmedclip.protocol.codecs.container import unwrap, wrap
from fedmedclip.protocol.codecs.error_feedback import apply_delta, norm_of
from fedmedclip.protocol.codecs.groups import groups_of
from fedmedclip.protocol.codecs.low_rank import read_head
from fedmedclip.protocol.codecs.positions import positions_from_bytes
from fedmedclip.protocol.codecs.reader import Reader, variable_integer
from fedmedclip.protocol.codecs.scales import SCALE_BYTES
from fedmedclip.protocol.errors import CodecError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification

_AS_IT_IS, _WRAPPED, _SIZED, _ZLIB, _COUNTED = range(5)
_LARGEST_CONTENT = 1 << 22
_DENSE, _SPARSE, _LOW_RANK, _PAPER, _MOMENTS = 1, 2, 3, 4, 5
_FULL = shared_head_specification("fedmedclip", 512)


def assembled(sections: list[Section]) -> bytes:
    """Return the bytes that sections stand for."""
    return b"".join(map(_assembled, sections))


def _assembled(section: Section) -> bytes:
    kind, content = section
    match kind:
        case k if k == _WRAPPED:
            return wrap(content)
        case k if k == _SIZED:
            wrapped = wrap(content)
            return variable_integer(len(wrapped)) + wrapped
        case k if k == _COUNTED:
            return variable_integer(len(content)) + content
        case k if k == _ZLIB:
            return zlib.compress(content, 1)
    return content


def taken_apart(encoded: bytes, specification: HeadSpecification) -> list[Section]:
    """Return the sections of a valid encoded head, all that is compressed unpacked."""
    reader = Reader(encoded)
    identifier = reader.byte()
    if identifier == _PAPER:
        return [(_AS_IT_IS, encoded[:1]), (_ZLIB, zlib.decompress(reader.rest()))]
    if identifier == _MOMENTS:
        return [(_AS_IT_IS, encoded[:1]), (_COUNTED, reader.take(reader.variable_integer(len(encoded))))]
    head = bytes([identifier, reader.byte()])
    if identifier == _DENSE:
        return [(_AS_IT_IS, head), (_WRAPPED, unwrap(reader.rest(), _LARGEST_CONTENT))]
    if identifier == _SPARSE:
        return [(_AS_IT_IS, head), *_sparse_sections(encoded[len(head) :], specification)]
    for group in groups_of(specification):
        read_head(reader, group)
    rest = reader.rest()
    return [(_AS_IT_IS, encoded[: len(encoded) - len(rest)]), (_WRAPPED, unwrap(rest, _LARGEST_CONTENT))]


def _sparse_sections(body: bytes, specification: HeadSpecification) -> list[Section]:
    reader, again = Reader(body), Reader(body)
    count = reader.variable_integer(specification.size)
    lengths = unwrap(reader.take(reader.variable_integer(len(body))), _LARGEST_CONTENT)
    positions_from_bytes(again, specification.size)
    again.take(SCALE_BYTES * len(specification.tensors))
    rest, wrapped = reader.rest(), again.rest()
    return [
        (_AS_IT_IS, variable_integer(count)),
        (_SIZED, lengths),
        (_AS_IT_IS, rest[: len(rest) - len(wrapped)]),
        (_WRAPPED, unwrap(wrapped, _LARGEST_CONTENT)),
    ]


def _take_head(data: bytes) -> None:
    specification = specifications()[(data[0] if data else 0) % len(specifications())]
    _decode(assembled(split(data[1:])), specification)


def _take_full_head(data: bytes) -> None:
    _decode(assembled(split(data[1:])), _FULL)


def _decode(encoded: bytes, specification: HeadSpecification) -> None:
    if encoded[:1] == bytes([_PAPER]):
        delta = decode_head(encoded, specification)
    else:
        delta = decode_delta(encoded, specification)
    specification.check(delta)
    norm_of(delta)
    specification.check(apply_delta(_zeros(specification), delta, specification))


def _zeros(specification: HeadSpecification) -> NamedArrays:
    return {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in specification.tensors}


def _seeds_of(codec: str) -> list[bytes]:
    return [seed for entry in golden()["heads"] if entry["codec"] == codec for seed in _inputs(entry)]


def _inputs(entry: dict[str, str]) -> Iterator[bytes]:
    specification, encoded = specification_of(entry), golden_file(entry["file"])
    choice = bytes([specifications().index(specification)])
    yield choice + join(taken_apart(encoded, specification))
    yield choice + join([(_AS_IT_IS, encoded)])


def _full_seeds() -> list[bytes]:
    delta = {name: np.float32(1e-3) * values for name, values in _FULL.initial(1).items()}
    seeds = []
    for name in ("int2", "topk", "lowrank:rank=16", "fp16", "moments"):
        encoded = encode_head(codec_named(name), delta, _FULL).data
        seeds += [b"\0" + join(taken_apart(encoded, _FULL)), b"\0" + join([(_AS_IT_IS, encoded)])]
    return seeds


def _take_container(data: bytes) -> None:
    """The first byte says how much is allowed, the next whether the rest is wrapped here or was before."""
    largest = 1 << (data[0] & 0x1F if data else 0)
    wrapped = data[2:] if data[1:2] < b"\x80" else wrap(data[2:])
    assert len(unwrap(wrapped, largest)) <= largest


def _take_codec_name(data: bytes) -> None:
    codec: Codec = codec_named(data.decode("utf-8", "replace"))
    assert codec.name


_MUTATE = after(1, by_section(mutated_bytes, kinds=5))


def _target(name: str, codec: str) -> Target:
    seeds: Callable[[], list[bytes]] = partial(_seeds_of, codec)
    return Target(f"codec-{name}", always(_take_head), (CodecError, HeadError), seeds, _MUTATE, weight=2.5)


_NAMES = {
    entry["file"].removeprefix("heads/").split("-", 1)[1].rsplit("-", 1)[0]: entry["codec"]
    for entry in golden()["heads"]
    if "extremes" not in entry["file"]
}

TARGETS = (
    *(_target(name, codec) for name, codec in _NAMES.items()),
    Target(
        "codec-full-size",
        always(_take_full_head),
        (CodecError, HeadError),
        _full_seeds,
        _MUTATE,
        weight=0.1,
        most_bytes=96 << 20,
    ),
    Target(
        "container",
        always(_take_container),
        (CodecError,),
        lambda: [
            b"\x10" + mark + wrap(content)
            for content in (bytes(3000), bytes(range(256)) * 4, b"")
            for mark in (b"\0", b"\xff")
        ],
        after(2, mutated_bytes),
        weight=12,
    ),
    Target(
        "codec-names",
        always(_take_codec_name),
        (InvalidInputError,),
        lambda: [
            *(codec.encode() for codec in _NAMES.values()),
            b"auto:kbits=64,seconds=1",
            b"lowrank:rank=8,carry=0.5",
        ],
        weight=0.05,
    ),
)
