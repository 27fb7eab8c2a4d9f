"""The files of a ledger: one folder, numbered segments, which are only ever appended to."""

import re
from collections.abc import Iterator
from pathlib import Path

from fedmedclip.edge_client.ledger.entry import Entry, entry_in
from fedmedclip.protocol.errors import StorageError

SEGMENT_BYTES = 16 << 20
"""After how many bytes the next segment is begun: some 40,000 entries."""

LEDGER_FOLDER = "ledger"
"""Its name in a site's state folder."""

_NAME = re.compile(r"ledger-(\d{6,})\.jsonl")
# More than the longest entry: each character of topic and note may take four bytes.
LONGEST_LINE = 1 << 14
_STEP_BYTES = 1 << 16


def segment_path(folder: Path, number: int) -> Path:
    """Return the file of a segment; the first is number 1."""
    return folder / f"ledger-{number:06d}.jsonl"


def segments_in(folder: Path) -> list[tuple[int, Path]]:
    """Return number and file of each segment in a ledger's folder, in order."""
    if not folder.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(name.group(1)), path) for name, path in found if name is not None)


def lines_in(path: Path, position: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield each line of a segment from a position on, with its line end where it has one, and where it ends.

    A line is at most `LONGEST_LINE` bytes: what is longer comes in pieces, and none of them is an entry.
    """
    with path.open("rb") as file:
        file.seek(position)
        while line := file.readline(LONGEST_LINE):
            position += len(line)
            yield position, line


def newest_number(folder: Path) -> int:
    """Return the number of a ledger's newest entry, as its last segment shows it; 0 where it has none."""
    return max((entry.number for entry in last_entries(segments_in(folder))), default=0)


def last_entries(segments: list[tuple[int, Path]]) -> Iterator[Entry]:
    """Yield the entries near the end of the last segment."""
    for _, path in segments[-1:]:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4 * LONGEST_LINE))
            yield from entries_in(file.read())


def entries_in(content: bytes) -> Iterator[Entry]:
    """Yield what is an entry of some lines."""
    for line in content.split(b"\n"):
        try:
            yield entry_in(line)
        except StorageError:
            continue


def read_entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries of a ledger as they stand, oldest first.

    What is no entry is left out: `verify` says what became of it.
    """
    for _, path in segments_in(folder):
        for _, line in lines_in(path):
            try:
                yield entry_in(line.removesuffix(b"\n"))
            except StorageError:
                continue


def newest_entries(folder: Path, most: int) -> list[Entry]:
    """Return the newest entries of a ledger, newest first, without reading the rest of it. Raises OSError."""
    found: list[Entry] = []
    for _, path in reversed(segments_in(folder)):
        size = path.stat().st_size
        reach = _STEP_BYTES
        while True:
            begin = max(0, size - reach)
            entries = _entries_from(path, begin)
            if begin == 0 or len(found) + len(entries) >= most:
                break
            reach *= 4
        found += reversed(entries)
        if len(found) >= most:
            break
    return found[:most]


def _entries_from(path: Path, begin: int) -> list[Entry]:
    """Return the entries of a segment from a position on; what stands there may be the middle of one."""
    found = []
    for _, line in lines_in(path, begin):
        try:
            found.append(entry_in(line.removesuffix(b"\n")))
        except StorageError:
            continue
    return found
