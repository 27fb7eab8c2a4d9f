"""One thread that writes for all: whatever is asked for while a transaction goes to disk is in the next one.

So the many threads of the doors share the waiting for the disk, and none of them holds the database.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from fedmedclip.edge_client.serving.journal import Journal
from fedmedclip.protocol.errors import FedMedClipError

log = logging.getLogger("fedmedclip.serve")

Result = TypeVar("Result")
_MOST_TOGETHER = 256
# After so long without work, what was deleted is taken out of the log as well.
_QUIET_SECONDS = 2.0


class Writer:
    """Opens the journal at `path` in a thread of its own. Raises StorageError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._asked: SimpleQueue[tuple[Callable[[Journal], Any], Future[Any]] | None] = SimpleQueue()
        opened: Future[None] = Future()
        self._thread = Thread(target=self._run, args=(path, opened), name="journal", daemon=True)
        self._thread.start()
        opened.result()

    def ask(self, act: Callable[[Journal], Result]) -> "Future[Result]":
        """Have `act` done with the journal; what it changed is on disk when the future has its result."""
        future: Future[Result] = Future()
        self._asked.put((act, future))
        return future

    def close(self) -> None:
        """Do what was asked for, and release the file."""
        self._asked.put(None)
        self._thread.join()

    def _run(self, path: Path, opened: "Future[None]") -> None:
        try:
            journal = Journal(path)
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(None)
        ended = written = False
        while not ended:
            try:
                together = [self._asked.get(timeout=_QUIET_SECONDS if written else None)]
            except Empty:
                written = not _emptied(journal)
                continue
            written = True
            while len(together) < _MOST_TOGETHER and not self._asked.empty():
                together.append(self._asked.get())
            ended = None in together
            self._do(journal, [asked for asked in together if asked is not None])
        _emptied(journal)
        journal.close()

    def _do(self, journal: Journal, together: list[tuple[Callable[[Journal], Any], "Future[Any]"]]) -> None:
        settled: list[Callable[[], None]] = []
        try:
            with journal.transaction():
                for act, future in together:
                    settled.append(_done(journal, act, future))
        except Exception as error:
            # Nothing of all this is on disk, whatever each of them found.
            settled = [_failing(future, error) for _, future in together]
        for settle in settled:
            settle()


def _emptied(journal: Journal) -> bool:
    """Empty the log; False where that has to wait, for a disk that is full."""
    try:
        journal.empty_log()
    except FedMedClipError as error:
        log.warning("%s", error, extra={"event": "journal.not_emptied"})
        return False
    return True


def _done(journal: Journal, act: Callable[[Journal], Any], future: "Future[Any]") -> Callable[[], None]:
    """Do one act; what it began is undone when it fails, and the others go on."""
    try:
        with journal.transaction():
            result = act(journal)
    except Exception as error:
        return _failing(future, error)
    return lambda: future.set_result(result)


def _failing(future: "Future[Any]", error: Exception) -> Callable[[], None]:
    return lambda: future.set_exception(error)
