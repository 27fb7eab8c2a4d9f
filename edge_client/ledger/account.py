"""The ledger counted for a report: by kind, by month, and update by update."""

from collections.abc import Iterable

import msgspec

from fedmedclip.edge_client.ledger.entry import Entry
from fedmedclip.edge_client.ledger.listing import moment_words
from fedmedclip.edge_client.ledger.notes import update_in
from fedmedclip.edge_client.ledger.totals import Count


class SentUpdate(msgspec.Struct):
    """An update as it was first sent: entry, moment, digest of its message, of its object where it has one.

    `bytes` are of all messages of it, blocks included, as often as they were sent.
    """

    number: int
    at: float
    run: int
    round_number: int
    attempt: int
    sha256: str
    object_digest: str | None
    messages: int
    bytes: int


class Account(msgspec.Struct):
    """Counts of what left and came by kind, of what left by month (2026-03) and kind, and all updates."""

    sent: dict[str, Count]
    received: dict[str, Count]
    months: dict[str, dict[str, Count]]
    updates: list[SentUpdate]
    events: list[Entry]
    first_at: float | None = None
    last_at: float | None = None


def account_of(entries: Iterable[Entry]) -> Account:
    """Read entries once, and return what a report says of them."""
    account = Account({}, {}, {}, [], [])
    updates: dict[tuple[int, int, int], SentUpdate] = {}
    by_object: dict[str, SentUpdate] = {}
    for entry in entries:
        account.first_at = entry.at if account.first_at is None else account.first_at
        account.last_at = entry.at
        if entry.direction == "here":
            account.events.append(entry)
            continue
        kinds = account.sent if entry.direction == "out" else account.received
        kinds.setdefault(entry.kind, Count()).add(1, entry.bytes)
        if entry.direction == "in":
            continue
        month = account.months.setdefault(moment_words(entry.at)[:7], {})
        month.setdefault(entry.kind, Count()).add(1, entry.bytes)
        if entry.kind == "Update" and (note := update_in(entry.note)) is not None:
            sent = updates.get((note.run, note.round_number, note.attempt))
            if sent is None:
                sent = SentUpdate(
                    entry.number, entry.at, note.run, note.round_number, note.attempt, entry.sha256,
                    note.object_digest, 0, 0,
                )  # fmt: skip
                updates[note.run, note.round_number, note.attempt] = sent
                account.updates.append(sent)
            if note.object_digest is not None:
                by_object[note.object_digest] = sent
        else:
            sent = (
                by_object.get(entry.note.split(" ")[1])
                if entry.kind == "Block" and " " in entry.note
                else None
            )
        if sent is not None:
            sent.messages += 1
            sent.bytes += entry.bytes
    return account
