"""An input as sections, so that a mutation can reach what lies behind a compressor, a digest or a signature.

Each section is one byte that says what it is (its meaning is the target's), its length in three bytes,
little-endian, and its bytes. A length beyond the end means what is left.
"""

from collections.abc import Iterable

Section = tuple[int, bytes]

_HEAD_BYTES = 4
_LONGEST = (1 << 24) - 1
MOST_SECTIONS = 64


def join(sections: Iterable[Section]) -> bytes:
    """Return sections as one input; what a length cannot say is cut off."""
    return b"".join(
        bytes([kind & 0xFF]) + len(content[:_LONGEST]).to_bytes(3, "little") + content[:_LONGEST]
        for kind, content in sections
    )


def split(data: bytes) -> list[Section]:
    """Return the sections of any bytes, at most `MOST_SECTIONS`."""
    found: list[Section] = []
    position = 0
    while position + _HEAD_BYTES <= len(data) and len(found) < MOST_SECTIONS:
        kind, length = data[position], int.from_bytes(data[position + 1 : position + _HEAD_BYTES], "little")
        position += _HEAD_BYTES
        found.append((kind, data[position : position + length]))
        position += length
    return found


def contents(data: bytes, count: int) -> list[bytes]:
    """Return what the first `count` sections hold; empty bytes for those that are not there."""
    found = [content for _, content in split(data)][:count]
    return found + [b""] * (count - len(found))
