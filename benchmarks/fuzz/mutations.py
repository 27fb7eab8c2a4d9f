"""How a valid input becomes a hostile one, by bytes, as MessagePack, as JSON, as text, or section by section.

Every mutation takes the input, another one to take parts from, and a seeded source of chance; the same three
give the same bytes.
"""

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from benchmarks.fuzz.sections import MOST_SECTIONS, join, split
from benchmarks.fuzz.trees import mutated_tree

Mutation = Callable[[bytes, bytes, Random], bytes]

# The last where a length is believed before there is what it promises.
_NO_TREE = (
    ValueError,
    TypeError,
    RecursionError,
    OverflowError,
    AttributeError,
    msgspec.MsgspecError,
    MemoryError,
)
LONGEST = 1 << 20
"""Bytes: no input grows beyond this."""
# What has grown so large is not taken apart again, which would take longer than to read it.
_LARGE = 1 << 14
# Of a text, what is looked at for words.
_WINDOW = 512
_NUMBERS = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
_TOKENS = (
    b"\xff", b"\x00" * 8, b"\xff" * 8, b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff", b"\x91" * 300, b"[" * 300, b"{\"a\":" * 200, b"\\ud800", b"\\u0000", b"nan",
    b"1e999", b"-1", b"9" * 5000, b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r\n", b"\x28\xb5\x2f\xfd", b"../../x",
    "\u2028\u202e\u0130\u017f".encode(),
)  # fmt: skip
_WORD = re.compile(rb"[A-Za-z_.\-]+|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
_TEXTS = (
    b'"', b"'", b'"""', b"[", b"]", b"[[", b"]]", b"{", b"}", b"=", b".", b",", b"#", b"\n", b"\\",
    b"0x", b"1e400",
    b"-nan", b"inf", b"0b1", b"0o7", b"1979-05-27T07:32:00Z", b"25:61:61", b"a.b.c.d", b"true",
    b"9" * 5000,
    b"x." * 90, b"[[a]]\n" * 50, b"\\u0000", b"\\ud800", b"\xff", b"\x00", b"{}", "\u2028".encode(),
)  # fmt: skip


def mutated_bytes(data: bytes, other: bytes, draw: Random) -> bytes:
    """Change one to four places, mostly near the front, where headers and counts are."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        _change(changed, other, draw)
    return bytes(changed[:LONGEST])


def _change(changed: bytearray, other: bytes, draw: Random) -> None:
    size = len(changed)
    at = draw.randrange(min(size, 64) if draw.random() < 0.4 else size) if size else 0
    match draw.randrange(9):
        case 0 if size:
            changed[at] ^= 1 << draw.randrange(8)
        case 1 if size:
            changed[at] = draw.randrange(256)
        case 2:
            width = draw.choice((1, 2, 4, 8))
            number = draw.choice(_NUMBERS).to_bytes(8, draw.choice(("little", "big")))
            changed[at : at + width] = number[:width] if draw.random() < 0.5 else number[-width:]
        case 3:
            del changed[at : at + draw.choice((1, 2, 8, 64))]
        case 4:
            del changed[at + 1 :]
        case 5:
            start = draw.randrange(len(other)) if other else 0
            changed[at:at] = other[start : start + draw.randrange(1, 256)]
        case 6:
            changed[at:at] = draw.choice(_TOKENS)
        case 7:
            changed[at:at] = changed[at : at + draw.randrange(1, 64)] * draw.choice((1, 2, 16, 64))
        case _:
            changed[at : at + 1] = draw.randbytes(draw.choice((1, 2, 4, 16)))


def mutated_msgpack(data: bytes, other: bytes, draw: Random) -> bytes:
    """Change a MessagePack value as a tree, or its bytes where it is none."""
    if draw.random() < 0.3 or len(data) > _LARGE:
        return mutated_bytes(data[: 2 * _LARGE], other, draw)
    try:
        tree, another = msgspec.msgpack.decode(data), _tree_or_none(other, msgspec.msgpack.decode)
        return msgspec.msgpack.encode(mutated_tree(tree, another, draw))
    except _NO_TREE:
        return mutated_bytes(data, other, draw)


def mutated_json(data: bytes, other: bytes, draw: Random) -> bytes:
    """Change a JSON value as a tree, or its text."""
    if draw.random() < 0.4 or len(data) > _LARGE:
        return mutated_text(data[: 2 * _LARGE], other, draw)
    try:
        tree, another = json.loads(data), _tree_or_none(other, json.loads)
        return json.dumps(mutated_tree(tree, another, draw), default=bytes.hex).encode()
    except _NO_TREE:
        return mutated_text(data, other, draw)


def mutated_text(data: bytes, other: bytes, draw: Random) -> bytes:
    """Exchange, repeat, drop and insert words and signs of a text."""
    if draw.random() < 0.2:
        return mutated_bytes(data, other, draw)
    start = draw.randrange(max(1, len(data) - _WINDOW // 2))
    words: list[bytes] = _WORD.findall(data[start : start + _WINDOW])
    others: list[bytes] = _WORD.findall(_window(other, draw)) or [b""]
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(words) + 1)
        match draw.randrange(6):
            case 0:
                words[at : at + 1] = [draw.choice(_TEXTS)]
            case 1:
                words[at:at] = [draw.choice(_TEXTS)]
            case 2:
                del words[at : at + draw.choice((1, 2, 8))]
            case 3:
                words[at:at] = words[at : at + draw.randrange(1, 20)] * draw.choice((1, 2, 30))
            case 4:
                first = draw.randrange(len(others))
                words[at : at + 1] = others[first : first + draw.randrange(1, 20)]
            case _:
                words[at : at + 1] = [draw.choice(others)]
    return (data[:start] + b"".join(words) + data[start + _WINDOW :])[:LONGEST]


def _window(data: bytes, draw: Random) -> bytes:
    start = draw.randrange(max(1, len(data) - _WINDOW // 2))
    return data[start : start + _WINDOW]


def by_section(*mutations: Mutation, kinds: int = 1) -> Mutation:
    """Return the mutation of sections whose contents are each changed in their own way, by their place.

    The last of `mutations` is for all that follow. `kinds` is how many meanings the byte of a section has.
    """

    def mutate(data: bytes, other: bytes, draw: Random) -> bytes:
        sections, others = split(data), split(other) or [(0, b"")]
        for _ in range(draw.choice((1, 1, 2))):
            at = draw.randrange(len(sections)) if sections else 0
            match draw.randrange(12):
                case 0 if sections and kinds > 1:
                    sections[at] = draw.randrange(kinds), sections[at][1]
                case 1 if kinds > 1 and len(sections) < MOST_SECTIONS:
                    sections.insert(at, draw.choice(others))
                case 2 if sections and kinds > 1:
                    del sections[at]
                case 3 if sections and kinds > 1:
                    sections.insert(draw.randrange(len(sections)), sections[at])
                case _ if sections:
                    kind, content = sections[at]
                    another = others[min(at, len(others) - 1)][1]
                    sections[at] = kind, mutations[min(at, len(mutations) - 1)](content, another, draw)
        return join(sections)

    return mutate


def after(prefix: int, mutation: Mutation) -> Mutation:
    """Return the mutation of what follows the first bytes, which choose how a target takes it."""

    def mutate(data: bytes, other: bytes, draw: Random) -> bytes:
        head = data[:prefix].ljust(prefix, b"\0")
        if draw.random() < 0.05:
            head = draw.randbytes(prefix)
        return head + mutation(data[prefix:], other[prefix:], draw)

    return mutate


def _tree_or_none(data: bytes, decode: Callable[[bytes], Any]) -> Any:
    try:
        return decode(data)
    except _NO_TREE:
        return None
