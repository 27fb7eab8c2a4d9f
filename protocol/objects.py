"""Encoded heads larger than a message: objects named by their hash, in numbered blocks."""

import hashlib
from collections.abc import Iterator

from protocol.envelope import OVERHEAD_BYTES
from protocol.errors import MessageError
from protocol.messages import MAXIMUM_BLOCKS, Block, ObjectReference


def refer_to(data: bytes, maximum_message_bytes: int) -> ObjectReference:
    """Return a reference to `data` that carries it when one message is large enough."""
    block_size = maximum_message_bytes - OVERHEAD_BYTES
    inline = data if len(data) <= block_size else b""
    return ObjectReference(hashlib.sha256(data).digest(), len(data), block_size, inline)


def block_count(reference: ObjectReference) -> int:
    """Number of blocks in which the object travels; 0 when the reference carries it."""
    return 0 if reference.data else -(-reference.size // reference.block_size)


def blocks_of(data: bytes, reference: ObjectReference, indices: list[int] | None = None) -> Iterator[Block]:
    """Yield the blocks of `data`, all or those of the given indices; indices past the end are left out."""
    count = block_count(reference)
    for index in range(count) if indices is None else indices:
        if index < count:
            start = index * reference.block_size
            yield Block(reference.digest, index, data[start : start + reference.block_size])


class Assembly:
    """The blocks of one referenced object that have arrived so far.

    Raises MessageError when the reference promises more than `maximum_bytes`, or inconsistent numbers: an
    assembly never holds more than the reference's size, and a reference never exceeds what is expected.
    """

    def __init__(self, reference: ObjectReference, maximum_bytes: int) -> None:
        if reference.size > maximum_bytes:
            raise MessageError(
                f"an object of {reference.size} bytes is announced, at most {maximum_bytes} fit the head"
            )
        if block_count(reference) > MAXIMUM_BLOCKS:
            raise MessageError(
                f"an object in {block_count(reference)} blocks is announced, at most {MAXIMUM_BLOCKS}"
            )
        self.reference = reference
        self._blocks: dict[int, bytes] = {}

    def add(self, index: int, data: bytes) -> None:
        """Take one block; one that comes twice counts once. Raises MessageError when it does not fit."""
        reference = self.reference
        if index >= block_count(reference):
            raise MessageError(f"block {index} of an object of {block_count(reference)} blocks")
        expected = min(reference.block_size, reference.size - index * reference.block_size)
        if len(data) != expected:
            raise MessageError(f"block {index} has {len(data)} bytes, expected {expected}")
        self._blocks.setdefault(index, data)

    @property
    def missing(self) -> list[int]:
        """Indices of the blocks that have not arrived."""
        return [index for index in range(block_count(self.reference)) if index not in self._blocks]

    @property
    def complete(self) -> bool:
        """Whether every block is here."""
        return not self.missing

    def data(self) -> bytes:
        """Return the object. Raises MessageError, and forgets its blocks, if it is not what was announced."""
        whole = self.reference.data or b"".join(self._blocks[index] for index in sorted(self._blocks))
        if len(whole) != self.reference.size or hashlib.sha256(whole).digest() != self.reference.digest:
            self._blocks.clear()
            raise MessageError("a received object does not match the SHA-256 that was announced for it")
        return whole
