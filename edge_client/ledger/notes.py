"""What an entry says of a message: its kind, and enough to find again what it was made of."""

import re
from dataclasses import dataclass

import msgspec

from fedmedclip.edge_client.ledger.entry import LONGEST_NOTE, Entry
from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import (
    LAST_WORD,
    Announcement,
    Block,
    Complaint,
    Confirmation,
    Figures,
    JoinAnswer,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Message,
    Moment,
    ObjectReference,
    Plan,
    Receipt,
    RenewalRequest,
    Reveal,
    RosterNotice,
    Snapshot,
    State,
    Update,
)

UNREADABLE = "unreadable"
"""The kind of what came and is no message of this protocol."""

SECURE = (MaskKeys, MaskShares, MaskedUpdate, Confirmation, Reveal, Complaint)
"""What belongs to sums under masks: its secrets live in memory only, and so does what is made of them."""

_LARGE = (Update, Block, State, RenewalRequest, *SECURE)
_UPDATE = re.compile(
    r"run (\d+) round (\d+) attempt (\d+)(?: object ([0-9a-f]{64}) of \d+ bytes in blocks of (\d+))?"
)
_PLAN = re.compile(r"run \d+ revision \d+ identity ([0-9a-f]{32})")
_BLOCK = re.compile(r"object ([0-9a-f]{64}) block (\d+)")


@dataclass(frozen=True)
class UpdateNote:
    """Which update an entry is of; where it went in blocks, of which object and of how many bytes each."""

    run: int
    round_number: int
    attempt: int
    object_digest: str | None
    block_size: int | None


def kind_of(message: Message) -> str:
    """Return the kind of a message, as `docs/protocol.md` names it."""
    return type(message).__name__


def opened(topic: str, payload: bytes) -> Message | None:
    """Return what came, whoever signed it; None for what is no message of this protocol."""
    try:
        return open_envelope(payload, topic).message
    except MessageError:
        return None


def note_of_sent(message: Message, run: int) -> str:
    """Return the note of a message that is sent in a run: where it is small, all that it says, as JSON."""
    match message:
        case Update():
            return f"run {run} round {message.round_number} attempt {message.attempt}" + _reference(
                message.payload
            )
        case Block():
            return f"object {message.object_digest.hex()} block {message.index}"
        case State():
            return f"run {run}" + _reference(message.payload)
    if isinstance(message, _LARGE):
        return f"run {run}"
    said = msgspec.json.encode(message).decode()
    return said if len(said) <= LONGEST_NOTE else f"run {run}"


def said_in(note: str) -> Message | None:
    """Return the message of which a note has all that it says; None for another note."""
    if not note.startswith("["):
        return None
    try:
        said: Message = msgspec.json.decode(note, type=Message)
    except (msgspec.MsgspecError, ValueError):
        return None
    return said


def note_for_people(note: str) -> str:
    """Return a note as it is read: of a message that stands in it, what it says but for keys and digests."""
    if (said := said_in(note)) is None:
        return note
    fields = msgspec.structs.asdict(said)
    words = [
        f"{name} {_value_words(value)}"
        for name, value in fields.items()
        if not isinstance(value, bytes | Figures) and value not in ("", None)
    ]
    # Four numbers each: too many for a line; `--json` has them.
    if figures := [name for name, value in fields.items() if isinstance(value, Figures)]:
        words.append(f"figures of {', '.join(figures)}")
    return ", ".join(words)


def _value_words(value: object) -> str:
    if isinstance(value, Moment):
        words = "last word" if value.sequence == LAST_WORD else str(value.sequence)
        return f"{value.session}.{value.connection}.{words}"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def update_in(note: str) -> UpdateNote | None:
    """Return what the note of an Update says."""
    if (found := _UPDATE.fullmatch(note)) is None:
        return None
    run, round_number, attempt, digest, size = found.groups()
    return UpdateNote(int(run), int(round_number), int(attempt), digest, None if size is None else int(size))


def block_in(note: str) -> tuple[str, int] | None:
    """Return object and index that the note of a Block says."""
    found = _BLOCK.fullmatch(note)
    return None if found is None else (found.group(1), int(found.group(2)))


def identity_in(entry: Entry) -> bytes | None:
    """Return the identity of the plan that came, None for another entry."""
    found = _PLAN.fullmatch(entry.note) if entry.kind == Plan.__name__ else None
    return None if found is None else bytes.fromhex(found.group(1))


def note_of_received(message: Message) -> str:
    """Return the note of a message that came."""
    match message:
        case Plan():
            return f"run {message.number} revision {message.revision} identity {message.identity.hex()}"
        case Announcement() | Snapshot():
            return f"version {message.version}"
        case JoinAnswer():
            return "accepted" if message.accepted else "not accepted"
        case Receipt():
            return f"round {message.round_number} {'accepted' if message.accepted else 'not accepted'}"
        case Block():
            return f"object {message.object_digest.hex()} block {message.index}"
        case RosterNotice():
            return f"{message.records} records"
    return ""


def _reference(payload: bytes | ObjectReference) -> str:
    if isinstance(payload, bytes):
        return ""
    return f" object {payload.digest.hex()} of {payload.size} bytes in blocks of {payload.block_size}"
