"""The ledger as the site's process writes it: on the disk before a message is sent, or acted on.

One process writes, the one that has claimed the state folder; whoever reads needs no lock. A kill leaves at
most an incomplete last line, which is cut at the next start, and said. What is missing or changed at the end
that the site's database knows is never mended: a new segment begins with an entry that says what is wrong.
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedmedclip.edge_client.ledger.end import LedgerEnd, Mark
from fedmedclip.edge_client.ledger.entry import Direction, Draft, Entry, draft_of, entry_after, line_of
from fedmedclip.edge_client.ledger.segments import SEGMENT_BYTES, segment_path
from fedmedclip.edge_client.ledger.starting import BREAK, TAKEN_UP, find_end
from fedmedclip.edge_client.ledger.totals import RunningTotals, Totals
from fedmedclip.protocol.errors import FullDiskError, StorageError
from fedmedclip.protocol.new_files import sync_folder
from fedmedclip.protocol.private_files import make_private

log = logging.getLogger("fedmedclip.site")


class MessageLedger:
    """Opens or begins the ledger in `folder`, for its owner only. `record` may be called on any thread.

    `end` is what the site's database knows of it; without one nothing tells a ledger that was cut. All but
    `record` belong to the database's thread. Raises FullDiskError on a full disk, else StorageError.
    """

    def __init__(
        self,
        folder: Path,
        end: LedgerEnd | None = None,
        *,
        clock: Callable[[], float] = time.time,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._end = end
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._file: int | None = None
        self._failure: StorageError | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = find_end(folder, None if end is None else end.mark())
        except OSError as error:
            raise self._explained(error) from error
        stored = {} if end is None or found.anew else end.totals()
        if end is not None and found.anew:
            end.forget_totals()
        self._totals = RunningTotals(stored)
        for entry in found.later:
            self._totals.add(entry)
        self._mark = found.mark
        self._kept: Mark | None = None
        self._open_segment(found.mark, cut=True)
        for kind, words in found.events:
            if kind == BREAK:
                log.error("the ledger %s is damaged: %s; `fedmedclip ledger verify` says more", folder, words)
            if kind != TAKEN_UP or end is not None:
                self.note(kind, words)
        self.keep_end()

    def record(self, direction: Direction, topic: str, payload: bytes, kind: str, note: str = "") -> Entry:
        """Record one message; it is on the disk when this returns."""
        return self.record_all([draft_of(direction, topic, payload, kind, note)])[0]

    def note(self, kind: str, words: str) -> Entry:
        """Record what happened to the ledger itself."""
        return self.record("here", "", b"", kind, words)

    def record_all(self, drafts: Sequence[Draft]) -> list[Entry]:
        """Record messages together, which costs one write to the disk; all are there when this returns.

        After a failure nothing is recorded any more, and every call raises it.
        """
        with self._lock:
            self._raise_failure()
            entries: list[Entry] = []
            number, previous = self._mark.number, self._mark.hash
            for draft in drafts:
                entries.append(entry_after(number, previous, self._clock(), draft))
                number, previous = entries[-1].number, entries[-1].hash
            if entries:
                try:
                    self._append(b"".join(line_of(entry) + b"\n" for entry in entries))
                except OSError as error:
                    self._failure = self._explained(error)
                    raise self._failure from error
                position = os.lseek(self._descriptor, 0, os.SEEK_END)
                self._mark = Mark(number, previous, self._mark.segment, position)
                for entry in entries:
                    self._totals.add(entry)
            return entries

    def check(self) -> None:
        """Raise what kept another thread from recording."""
        with self._lock:
            self._raise_failure()

    def keep_end(self) -> None:
        """Tell the database how far the ledger is, if that is new."""
        with self._lock:
            self._raise_failure()
            if self._end is None or self._mark == self._kept:
                return
            gone, changed, mark = (
                self._totals.take_old(self._clock()),
                self._totals.take_changes(),
                self._mark,
            )
        self._end.keep(mark, changed, gone)
        self._kept = mark

    def sent_bytes(self, since: float | None = None) -> int:
        """Return the bytes of all payloads that left, or of those since a moment (seconds since 1970).

        The moment counts from the beginning of its quarter of an hour; if it is more than two days ago, from
        the beginning of the next day of UTC.
        """
        with self._lock:
            return self._totals.sent_bytes(since)

    def totals(self) -> Totals:
        """Return how much has left and come, by kind."""
        with self._lock:
            return self._totals.totals(self._clock())

    @property
    def newest(self) -> Mark:
        """The newest entry."""
        return self._mark

    def close(self) -> None:
        """Keep the end, and release the file."""
        try:
            if self._failure is None:
                self.keep_end()
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    @property
    def _descriptor(self) -> int:
        if self._file is None:
            raise StorageError(f"the ledger {self._folder} is closed")
        return self._file

    def _append(self, lines: bytes) -> None:
        if self._mark.position and self._mark.position + len(lines) > self._segment_bytes:
            os.close(self._descriptor)
            self._file = None
            self._mark = Mark(self._mark.number, self._mark.hash, self._mark.segment + 1, 0)
            self._open_segment(self._mark, cut=False)
        descriptor, left = self._descriptor, memoryview(lines)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError:
            # A part of an entry would be taken for damage by whoever reads on.
            os.ftruncate(descriptor, self._mark.position)
            raise

    def _open_segment(self, mark: Mark, *, cut: bool) -> None:
        """Open the segment in which the ledger goes on; with `cut` at the mark, past which no entry is."""
        path = segment_path(self._folder, mark.segment)
        try:
            is_new = not path.exists()
            make_private(path)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            if cut and os.fstat(self._file).st_size > mark.position:
                os.ftruncate(self._file, mark.position)
            if is_new:
                sync_folder(self._folder)
        except OSError as error:
            raise self._explained(error) from error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _explained(self, error: OSError) -> StorageError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return (FullDiskError if full else StorageError)(
            f"cannot write the ledger {self._folder}: {error.strerror}; nothing is sent unrecorded: "
            + ("free some space and start again" if full else "check the folder and its permissions")
        )
