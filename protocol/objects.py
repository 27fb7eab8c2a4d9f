"""Encoded heads: inside their message where they fit, otherwise as numbered blocks of a hashed object."""

import hashlib
from collections.abc import Iterator
from itertools import islice

from fedmedclip.protocol.envelope import OVERHEAD_BYTES
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import (
    MAXIMUM_BLOCKS,
    Block,
    BlockRequest,
    ObjectReference,
    Payload,
)

# Of at most 3 bytes each: such a request fits the least message that a broker may take.
REQUESTED_AT_ONCE = 256


def refer_to(data: bytes, maximum_message_bytes: int) -> Payload:
    """Return `data` itself when one message is large enough for it, otherwise a reference to its blocks."""
    block_size = maximum_message_bytes - OVERHEAD_BYTES
    if len(data) <= block_size:
        return data
    return ObjectReference(hashlib.sha256(data).digest(), len(data), block_size)


def block_count(payload: Payload) -> int:
    """Number of blocks in which the payload travels; 0 when the message carries it."""
    return 0 if isinstance(payload, bytes) else -(-payload.size // payload.block_size)


def blocks_of(data: bytes, payload: Payload, indices: list[int] | None = None) -> Iterator[Block]:
    """Yield the blocks of `data`, all or those of the given indices, each once; none past the end."""
    if isinstance(payload, bytes):
        return
    count = block_count(payload)
    for index in range(count) if indices is None else sorted(set(indices)):
        if index < count:
            start = index * payload.block_size
            yield Block(payload.digest, index, data[start : start + payload.block_size])


class Assembly:
    """An encoded head as it arrives: with its message, or block by block.

    Raises MessageError when the message promises more than `maximum_bytes`, or inconsistent numbers: an
    assembly never holds more than was promised, and never more than is expected.
    """

    def __init__(self, payload: Payload, maximum_bytes: int) -> None:
        size = len(payload) if isinstance(payload, bytes) else payload.size
        if size > maximum_bytes:
            raise MessageError(
                f"an object of {size} bytes is announced, at most {maximum_bytes} fit the head"
            )
        if block_count(payload) > MAXIMUM_BLOCKS:
            raise MessageError(
                f"an object in {block_count(payload)} blocks is announced, at most {MAXIMUM_BLOCKS}"
            )
        self._payload = payload
        self._blocks: dict[int, bytes] = {}

    def add(self, index: int, data: bytes) -> None:
        """Take one block; one that comes twice counts once. Raises MessageError when it does not fit."""
        payload = self._payload
        if isinstance(payload, bytes) or index >= block_count(payload):
            raise MessageError(f"block {index} of an object of {block_count(payload)} blocks")
        expected = min(payload.block_size, payload.size - index * payload.block_size)
        if len(data) != expected:
            raise MessageError(f"block {index} has {len(data)} bytes, expected {expected}")
        self._blocks.setdefault(index, data)

    @property
    def digest(self) -> bytes | None:
        """SHA-256 that names the object; None when its message carried it."""
        return None if isinstance(self._payload, bytes) else self._payload.digest

    def request(self) -> BlockRequest | None:
        """Return a request for the blocks that have not arrived (the first of them); None when all have."""
        if isinstance(self._payload, bytes) or self.complete:
            return None
        missing = (index for index in range(block_count(self._payload)) if index not in self._blocks)
        return BlockRequest(self._payload.digest, list(islice(missing, REQUESTED_AT_ONCE)))

    @property
    def arrived(self) -> int:
        """How many blocks are here."""
        return len(self._blocks)

    @property
    def complete(self) -> bool:
        """Whether every block is here."""
        return len(self._blocks) == block_count(self._payload)

    def data(self) -> bytes:
        """Return the encoded head. Raises MessageError, and forgets its blocks, if it has another SHA-256."""
        if isinstance(self._payload, bytes):
            return self._payload
        whole = b"".join(self._blocks[index] for index in sorted(self._blocks))
        if hashlib.sha256(whole).digest() != self._payload.digest:
            self._blocks.clear()
            raise MessageError("a received object does not match the SHA-256 that was announced for it")
        return whole
