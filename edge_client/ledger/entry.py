"""One entry of the ledger, and the line that it is in the file.

A line is a JSON object with its items in this order and no blanks. `hash` is the SHA-256 of the line's bytes
up to, and without, `,"hash":`; `previous` is the hash of the entry before. So whoever changes an entry has to
change all that come after it, and the newest, which is known elsewhere too, is another.
"""

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.visible import visible

Direction = Literal["out", "in", "here"]
"""What left this site, what came, and what happened here to the ledger itself."""

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

NO_HASH = "0" * 64
"""What the first entry has as the hash before it."""

LONGEST_TOPIC = 200
LONGEST_NOTE = 1500
_HASH_ITEM_BYTES = len(f',"hash":"{NO_HASH}"}}')


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message that left or came, or an event of the ledger: `at` in seconds since 1970, by this clock.

    `kind` is the message's, such as Update, or "unreadable"; `bytes` and `sha256` are of its payload as it
    travels, signature included. `note` says what it is about, or what happened.
    """

    number: Annotated[int, Meta(ge=1)]
    at: float
    direction: Direction
    topic: str
    kind: str
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256
    note: str
    previous: Sha256
    hash: Sha256


class Draft(msgspec.Struct, frozen=True):
    """What an entry is to say of a message; the ledger adds number, time and hashes."""

    direction: Direction
    topic: str
    kind: str
    bytes: int
    sha256: str
    note: str = ""


def draft_of(direction: Direction, topic: str, payload: bytes, kind: str, note: str = "") -> Draft:
    """Return what is recorded of a message; of the payload nothing but its size and digest."""
    return Draft(direction, topic, kind, len(payload), hashlib.sha256(payload).hexdigest(), note)


def entry_after(number: int, previous: str, at: float, draft: Draft) -> Entry:
    """Return the entry that follows number `number`, whose hash is `previous`."""
    unsigned = Entry(
        number + 1,
        round(at, 3),
        draft.direction,
        visible(draft.topic[:LONGEST_TOPIC])[:LONGEST_TOPIC],
        draft.kind,
        draft.bytes,
        draft.sha256,
        visible(draft.note[:LONGEST_NOTE])[:LONGEST_NOTE],
        previous,
        NO_HASH,
    )
    return msgspec.structs.replace(unsigned, hash=hash_of(line_of(unsigned)))


def line_of(entry: Entry) -> bytes:
    """Return an entry as its line in the file, without the line end."""
    return msgspec.json.encode(entry)


def hash_of(line: bytes) -> str:
    """Return the hash that the entry in a line has to have."""
    return hashlib.sha256(line[:-_HASH_ITEM_BYTES]).hexdigest()


def entry_in(line: bytes) -> Entry:
    """Return the entry in a line, without its line end.

    Raises StorageError when it is not written as the ledger writes, or its hash is not that of its content.
    """
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except MALFORMED as error:
        raise StorageError(f"it is no entry ({error})") from error
    if line_of(entry) != line:
        raise StorageError("it is not written as the ledger writes")
    if hash_of(line) != entry.hash:
        raise StorageError("its hash is not that of its content")
    return entry
