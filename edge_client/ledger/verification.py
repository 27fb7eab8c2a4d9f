"""Whether a ledger is whole: every entry unchanged, in its place, none missing, and its end the one known."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from fedmedclip.edge_client.ledger.end import Mark
from fedmedclip.edge_client.ledger.entry import NO_HASH, Entry, entry_in
from fedmedclip.edge_client.ledger.segments import lines_in, segments_in
from fedmedclip.edge_client.ledger.starting import BREAK
from fedmedclip.protocol.errors import StorageError

_MOST_FAULTS = 100


class Verdict(msgspec.Struct):
    """What `verify` found: `faults`, one line each, oldest first; none where the ledger is whole.

    `newest_number` and `newest_hash` are of the last entry: noted elsewhere, on paper, they prove later that
    nothing up to there was changed. `incomplete` is whether a last line is being written, or was when its
    process was killed. `known_to_state` is the number of the newest entry that the database knows, None where
    there is none to compare with.
    """

    entries: int = 0
    first_at: float | None = None
    last_at: float | None = None
    newest_number: int = 0
    newest_hash: str = NO_HASH
    known_to_state: int | None = None
    incomplete: bool = False
    faults: list[str] = []

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def verify(folder: Path, known: Mark | None = None, noted: Mark | None = None, first: int = 1) -> Verdict:
    """Read all of the ledger in `folder` and return what is wrong with it.

    `known` is its end as the database has it, read before; `noted` an entry's number and hash that somebody
    wrote down. Faults of entries before number `first` are left out.
    """
    verdict = Verdict(known_to_state=None if known is None else known.number)
    wanted = {mark.number: mark.hash for mark in (known, noted) if mark is not None and mark.number}
    for number, words in _faults(folder, verdict, wanted):
        if number >= first and len(verdict.faults) < _MOST_FAULTS:
            verdict.faults.append(words)
    return verdict


def _faults(folder: Path, verdict: Verdict, wanted: dict[int, str]) -> Iterator[tuple[int, str]]:
    """Yield each fault with the number of the entry that it concerns."""
    segments = segments_in(folder)
    for segment, path in segments:
        begins = True
        for _, line in lines_in(path):
            expected = verdict.newest_number + 1
            if not line.endswith(b"\n"):
                # Only what nobody knows of yet may be half written.
                verdict.incomplete = True
                if segment != segments[-1][0]:
                    yield expected, f"entry {expected} is changed: it is not complete ({path.name})"
                continue
            try:
                entry = entry_in(line[:-1])
            except StorageError as error:
                yield expected, f"entry {expected} is changed: {error} ({path.name})"
                verdict.newest_number, verdict.newest_hash = expected, ""
                continue
            if fault := _fault(entry, verdict, begins=begins):
                yield entry.number, f"{fault} ({path.name})"
            wanted_hash = wanted.pop(entry.number, entry.hash)
            if wanted_hash != entry.hash:
                yield (
                    entry.number,
                    (
                        f"entry {entry.number} is changed: its hash was {wanted_hash[:16]}... and is "
                        f"{entry.hash[:16]}..."
                    ),
                )
            _count(entry, verdict)
            begins = False
    for number, _ in sorted(wanted.items()):
        yield number, _missing(verdict.newest_number + 1, number, "the ledger is cut")


def _fault(entry: Entry, verdict: Verdict, *, begins: bool) -> str | None:
    """Return what is wrong with where an entry stands; None where it follows the one before."""
    expected = verdict.newest_number + 1
    if entry.kind == BREAK and begins:
        return f"entry {entry.number} begins anew after a break: {entry.note}"
    if entry.number > expected:
        return _missing(expected, entry.number - 1, f"entry {entry.number} comes next")
    if entry.number < expected:
        return f"entry {entry.number} stands where {expected} should: it is there twice or out of its place"
    # After one that cannot be read nobody knows what its hash was.
    if verdict.newest_hash and entry.previous != verdict.newest_hash:
        return f"entry {entry.number} does not follow the one before it, which is changed"
    return None


def _missing(first: int, last: int, words: str) -> str:
    if first > last:
        return f"entry {last} is missing; {words}"
    which = f"entry {first} is" if first == last else f"entries {first} to {last} are"
    return f"{which} missing; {words}"


def _count(entry: Entry, verdict: Verdict) -> None:
    verdict.entries += 1
    verdict.first_at = entry.at if verdict.first_at is None else verdict.first_at
    verdict.last_at = entry.at
    verdict.newest_number, verdict.newest_hash = entry.number, entry.hash
