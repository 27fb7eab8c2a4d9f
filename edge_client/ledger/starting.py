"""Where a ledger ends when its site starts, and what is wrong with it there.

Looked at is what comes after the end that the database knows, so that a start is quick however long the
ledger is; `verify` looks at all of it.
"""

from dataclasses import dataclass, field
from pathlib import Path

from fedmedclip.edge_client.ledger.end import Mark
from fedmedclip.edge_client.ledger.entry import Entry, entry_in
from fedmedclip.edge_client.ledger.segments import (
    LONGEST_LINE,
    entries_in,
    last_entries,
    lines_in,
    segment_path,
    segments_in,
)
from fedmedclip.protocol.errors import StorageError

BEGINNING = "Beginning"
BREAK = "Break"
"""The kind of an entry that begins a segment of its own, after one whose end is missing or changed."""
CUT = "Cut"
TAKEN_UP = "TakenUp"

# What a site records between two looks at its database is of the last seconds.
_LATE_SECONDS = 60.0


@dataclass
class FoundEnd:
    """Where to go on. `later` are the entries that the database does not know, `anew` whether these are all;
    `events` (kind and words) are to be recorded first.
    """

    mark: Mark
    later: list[Entry] = field(default_factory=list)
    anew: bool = False
    events: list[tuple[str, str]] = field(default_factory=list)


def find_end(folder: Path, known: Mark | None) -> FoundEnd:
    """Return where the ledger in `folder` ends, of which the database knows an entry, or nothing."""
    segments = segments_in(folder)
    if known is None:
        if not segments:
            return FoundEnd(Mark(), anew=True, events=[(BEGINNING, "what left or came before has no entry")])
        known = Mark(segment=segments[0][0])
        words = "the state knew of no entry; those that were here are taken over"
        return _read_on(folder, known, FoundEnd(known, anew=True, events=[(TAKEN_UP, words)]))
    if not _has(folder, known):
        numbers = [entry.number for entry in last_entries(segments)]
        last = max([known.number, *numbers])
        words = f"entry {known.number}, the newest that the state knew, is missing or changed"
        segment = max([known.segment, *(number for number, _ in segments)]) + 1
        return FoundEnd(Mark(last, known.hash, segment, 0), events=[(BREAK, words)])
    found = _read_on(folder, known, FoundEnd(known))
    if found.later and found.later[-1].at - found.later[0].at > _LATE_SECONDS:
        words = f"the state knew of {known.number} entries and is older than the ledger, which goes on"
        found.events.append((TAKEN_UP, words))
    return found


def _has(folder: Path, mark: Mark) -> bool:
    """Whether the entry of a mark stands where it says."""
    if mark.number == 0:
        return True
    path = segment_path(folder, mark.segment)
    try:
        with path.open("rb") as file:
            start = max(0, mark.position - LONGEST_LINE)
            file.seek(start)
            before = file.read(mark.position - start)
    except OSError:
        return False
    if len(before) != mark.position - start or not before.endswith(b"\n"):
        return False
    try:
        entry = entry_in(before[:-1].rsplit(b"\n", 1)[-1])
    except StorageError:
        return False
    return (entry.number, entry.hash) == (mark.number, mark.hash)


def _read_on(folder: Path, known: Mark, found: FoundEnd) -> FoundEnd:
    """Follow the chain from a mark on, as far as it holds."""
    segments = [number for number, _ in segments_in(folder) if number >= known.segment]
    for segment in segments:
        position = known.position if segment == known.segment else 0
        if segment != found.mark.segment:
            found.mark = Mark(found.mark.number, found.mark.hash, segment, 0)
        lines = lines_in(segment_path(folder, segment), position)
        for end, line in lines:
            entry = _next_entry(line, found.mark)
            if entry is None:
                rest = line + b"".join(piece for _, piece in lines)
                if segment == segments[-1] and not any(entries_in(rest)):
                    found.events.append((CUT, f"{len(rest)} bytes of an entry that was not complete"))
                else:
                    words = f"what follows entry {found.mark.number} is changed"
                    last = max([found.mark.number, *(entry.number for entry in entries_in(rest))])
                    last = max([last, *(entry.number for entry in last_entries(segments_in(folder)))])
                    found.events.append((BREAK, words))
                    found.mark = Mark(last, found.mark.hash, segments[-1] + 1, 0)
                return found
            found.later.append(entry)
            found.mark = Mark(entry.number, entry.hash, segment, end)
    return found


def _next_entry(line: bytes, mark: Mark) -> Entry | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = entry_in(line[:-1])
    except StorageError:
        return None
    follows = entry.number == mark.number + 1 and entry.previous == mark.hash
    return entry if follows or entry.kind == BREAK else None
