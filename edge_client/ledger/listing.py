"""Choosing entries, and writing them for people and for other programs."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fedmedclip.edge_client.ledger.entry import Entry
from fedmedclip.edge_client.ledger.notes import note_for_people
from fedmedclip.protocol.csv_cells import text_cell
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import new_text_file

_ARROWS = {"out": "->", "in": "<-", "here": "--"}


def chosen(
    entries: Iterable[Entry],
    *,
    last: int | None,
    direction: str | None,
    kind: str | None,
    since: float | None,
) -> Iterator[Entry]:
    """Return the entries of a direction and kind, since a moment, and of these the `last` so many."""
    found = (
        entry
        for entry in entries
        if (direction is None or entry.direction == direction)
        and (kind is None or entry.kind.lower() == kind.lower())
        and (since is None or entry.at >= since)
    )
    return found if last is None else iter(deque(found, last))


def moment_of(text: str) -> float:
    """Return a date or moment, as in 2026-03-01 or 2026-03-01T12:00, in seconds since 1970.

    One without time zone is of this machine's. Raises InvalidInputError.
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"--since {text!r} is no date: write 2026-03-01 or 2026-03-01T12:00"
        ) from error


def moment_words(at: float) -> str:
    """Return a moment in UTC for people and spreadsheets."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "at no moment that a calendar has"


def line_for_people(entry: Entry) -> str:
    """Return an entry as one line."""
    note = f"  {note_for_people(entry.note)}" if entry.note else ""
    return (
        f"{entry.number:>8} {moment_words(entry.at)} {_ARROWS[entry.direction]} {entry.kind:<16} "
        f"{entry.bytes:>9,} bytes  {entry.sha256[:16]}  {entry.topic}{note}"
    )


def export(entries: Iterable[Entry], path: Path, form: str) -> int:
    """Write entries to a new file, as "csv" for spreadsheets or "json" (an array); return how many.

    Raises OSError.
    """
    count = 0
    with new_text_file(path, private=True) as file:
        if form == "csv":
            rows = csv.writer(file)
            rows.writerow(["moment", *Entry.__struct_fields__])
            for entry in entries:
                count += 1
                values = [text_cell(str(value)) for value in msgspec.structs.astuple(entry)]
                rows.writerow([moment_words(entry.at), *values])
            return count
        file.write("[")
        for count, entry in enumerate(entries, start=1):
            file.write(("\n" if count == 1 else ",\n") + msgspec.json.encode(entry).decode())
        file.write("\n]\n")
    return count
