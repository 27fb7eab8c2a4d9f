"""Making again what was sent, and comparing it with what the ledger has: that the record is of these bytes.

An update is encoded again from what the site kept of its making, cut into blocks as it was sent, and signed
with the site's key: Ed25519 (RFC 8032) signs the same bytes the same way. A message that is small stands in
its entry with all that it says.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from fedmedclip.edge_client.ledger.entry import Entry
from fedmedclip.edge_client.ledger.notes import SECURE, UpdateNote, block_in, identity_in, said_in, update_in
from fedmedclip.edge_client.ledger.sources import UpdateSource, UpdateSources
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import HeadError, InvalidInputError, MessageError, StorageError
from fedmedclip.protocol.messages import Message, ObjectReference, Status, Update
from fedmedclip.protocol.objects import blocks_of
from fedmedclip.protocol.signature import SigningKey

Outcome = Literal["same", "differs", "not kept", "cannot be"]
_SECURE_KINDS = frozenset(kind.__name__ for kind in SECURE)
_SAID_BY_OTHERS = frozenset({"EnrolmentRequest"})


class ReplayedUpdate(msgspec.Struct):
    """An update of a round, and its blocks: whether it comes out as it was recorded, and if not, why."""

    run: int
    round_number: int
    attempt: int
    outcome: Outcome
    words: str
    messages: int
    bytes: int


class ReplayedKind(msgspec.Struct):
    """The other messages of a kind: how many came out the same, differ, or cannot be made again, and why."""

    kind: str
    same: int = 0
    differing: list[int] = []
    not_made: int = 0
    words: str = ""


class Replay(msgspec.Struct):
    """What came of it: updates oldest first, then the other kinds. `differing` are numbers of entries."""

    updates: list[ReplayedUpdate]
    others: list[ReplayedKind]

    @property
    def differs(self) -> bool:
        """Whether anything came out otherwise than it was recorded."""
        return any(update.outcome == "differs" for update in self.updates) or any(
            kind.differing for kind in self.others
        )


@dataclass(frozen=True)
class Signer:
    """Who signed, for which federation, and the identities of the plans of all its runs, oldest first."""

    federation: str
    site: str
    key: SigningKey
    plan_identities: Sequence[bytes]

    def is_of(self, entry: Entry, message: Message, identity: bytes) -> bool:
        """Whether an entry is of this message, sealed for a run with this plan."""
        payload = seal(message, entry.topic, self.key, identity)
        return (len(payload), hashlib.sha256(payload).hexdigest()) == (entry.bytes, entry.sha256)

    def said(self, entry: Entry, message: Message) -> bool:
        """Whether an entry is of this message, in any run."""
        if isinstance(message, Status):
            return self.is_of(entry, message, NO_IDENTITY)
        return any(
            self.is_of(entry, message, identity)
            for identity in [*reversed(self.plan_identities), NO_IDENTITY]
        )

    def owns(self, entry: Entry) -> bool:
        """Whether an entry is of a topic of this site."""
        return entry.topic in (
            topics.up(self.federation, self.site),
            topics.status(self.federation, self.site),
        )


@dataclass
class _Sent:
    """The entries of one update, and of the blocks of its object by index."""

    entries: list[tuple[Entry, UpdateNote]] = field(default_factory=list)
    blocks: list[tuple[Entry, int]] = field(default_factory=list)

    def all(self) -> Iterator[Entry]:
        yield from (entry for entry, _ in self.entries)
        yield from (entry for entry, _ in self.blocks)


def replay(read: Callable[[], Iterable[Entry]], sources: UpdateSources, signer: Signer) -> Replay:
    """Make again all that a ledger says was sent, as far as it is kept what it was made of.

    `read` returns its entries, which are gone through twice: plans that came say for which runs was signed.
    """
    heard = [identity for entry in read() if (identity := identity_in(entry)) is not None]
    signer = replace(signer, plan_identities=[*dict.fromkeys([*signer.plan_identities, *heard])])
    updates: dict[tuple[int, int, int], _Sent] = defaultdict(_Sent)
    blocks: dict[str, list[tuple[Entry, int]]] = defaultdict(list)
    others: dict[str, ReplayedKind] = {}
    for entry in read():
        if entry.direction != "out":
            continue
        note, block = update_in(entry.note), block_in(entry.note)
        if entry.kind == Update.__name__ and note is not None:
            updates[note.run, note.round_number, note.attempt].entries.append((entry, note))
        elif entry.kind == "Block" and block is not None:
            blocks[block[0]].append((entry, block[1]))
        else:
            _replay_other(entry, signer, others.setdefault(entry.kind, ReplayedKind(entry.kind)))
    for sent in updates.values():
        for digest in {note.object_digest for _, note in sent.entries} - {None}:
            sent.blocks += blocks.pop(digest or "", [])
    if left := sum(map(len, blocks.values())):
        words = "blocks of masked updates, or of a proof that the aggregator asked for"
        others["Block"] = ReplayedKind("Block", not_made=left, words=words)
    done = [_replay_update(key, sent, sources, signer) for key, sent in sorted(updates.items())]
    return Replay(done, [others[kind] for kind in sorted(others)])


def _replay_update(
    key: tuple[int, int, int], sent: _Sent, sources: UpdateSources, signer: Signer
) -> ReplayedUpdate:
    messages = sum(1 for _ in sent.all())
    size = sum(entry.bytes for entry in sent.all())

    def outcome(found: Outcome, words: str) -> ReplayedUpdate:
        return ReplayedUpdate(*key, found, words, messages, size)

    try:
        source = sources.find(*key)
        if source is None:
            return outcome("not kept", "what it was made of is not kept any more")
        encoded = source.encoded()
    except (StorageError, InvalidInputError, HeadError, MessageError) as error:
        return outcome("cannot be", str(error))
    differing = [*_differing(source, key[2], encoded, sent, signer)]
    if not differing:
        return outcome("same", "1 message" if messages == 1 else f"{messages} messages")
    words = f"entry {differing[0].number} ({differing[0].kind}) is of other bytes"
    return outcome("differs", f"{words}; made by fedmedclip {source.software or 'of an unknown version'}")


def _differing(
    source: UpdateSource, attempt: int, encoded: bytes, sent: _Sent, signer: Signer
) -> Iterator[Entry]:
    """Yield the entries that are not of an update with these bytes."""
    digest, sizes = hashlib.sha256(encoded).digest(), Counter[int]()
    for entry, note in sent.entries:
        payload: bytes | ObjectReference = encoded
        if note.block_size is not None:
            payload = ObjectReference(digest, len(encoded), note.block_size)
            sizes[note.block_size] += 1
        update = Update(source.round_number, source.samples, payload, attempt, source.privacy)
        if not signer.is_of(entry, update, source.plan_identity):
            yield entry
    for entry, index in sent.blocks:
        # Cut anew where the broker came to take messages of another size.
        cut = [
            block
            for size in sizes
            for block in blocks_of(encoded, ObjectReference(digest, len(encoded), size), [index])
        ]
        if not any(signer.is_of(entry, block, source.plan_identity) for block in cut):
            yield entry


def _replay_other(entry: Entry, signer: Signer, found: ReplayedKind) -> None:
    said = said_in(entry.note)
    if said is None or not signer.owns(entry):
        found.not_made += 1
        if entry.kind in _SECURE_KINDS:
            found.words = "made of keys and masks that live in memory only, for one try of one sum"
        elif entry.kind in _SAID_BY_OTHERS:
            found.words = "signed with keys of the enrolment"
        else:
            found.words = "what it says is not kept"
    elif type(said).__name__ == entry.kind and signer.said(entry, said):
        found.same += 1
    else:
        found.differing.append(entry.number)


def replay_lines(done: Replay) -> list[str]:
    """Return it as lines for a person."""
    lines = [
        f"run {update.run} round {update.round_number}"
        + (f" attempt {update.attempt}" if update.attempt else "")
        + f": {update.outcome} ({update.words}; {update.bytes:,} bytes)"
        for update in done.updates
    ]
    for kind in done.others:
        parts = [f"{kind.same} the same"] if kind.same else []
        if kind.differing:
            numbers = ", ".join(map(str, kind.differing[:10]))
            parts.append(f"{len(kind.differing)} differ: entries {numbers}")
        if kind.not_made:
            parts.append(f"{kind.not_made} not made again: {kind.words}")
        lines.append(f"{kind.kind}: {'; '.join(parts)}")
    return lines or ["nothing was sent"]
