"""The watch folder's door: it looks, waits until files have settled, and hands them to the queue.

look -> what is not known -> settled? -> copy into the queue's folder, with its digest -> queue -> remembered

A file is remembered once the queue has it on disk. A kill between the two lets the queue see it again under
its key, which it knows.
"""

import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.edge_client.serving.folder.events import Events
from fedmedclip.edge_client.serving.folder.intake import Intake, Taken
from fedmedclip.edge_client.serving.folder.listing import Found, Look, files_in
from fedmedclip.edge_client.serving.folder.memory import Memory
from fedmedclip.edge_client.serving.folder.place import Place
from fedmedclip.edge_client.serving.folder.settings import FolderSettings
from fedmedclip.edge_client.serving.folder.settling import Settling
from fedmedclip.edge_client.serving.folder.trouble import Trouble
from fedmedclip.edge_client.serving.queue import DurableQueue, QueueFullError
from fedmedclip.protocol.errors import FedMedClipError, StorageError
from fedmedclip.protocol.faults import in_words

log = logging.getLogger("fedmedclip.serving.folder")

MOST_IN_HAND = 32
"""Files that wait in the queue for their answer: the others wait where they lie."""

_TAKEN_IN_ONE_LOOK = 256
_REMEMBERED_AT_ONCE = 64
# A look may take this part of the time: one at a slow share with many files takes long.
_SHARE_OF_TIME = 0.1
_FORGET_SECONDS = 86_400.0
_CHECK_SECONDS = 1.0


class FolderDoor:
    """Watches `folder` for a queue. `memory` is the file in which it remembers what is dealt with."""

    def __init__(self, settings: FolderSettings, folder: Path, queue: DurableQueue, memory: Path) -> None:
        self._settings = settings
        self._queue = queue
        self._memory_file = memory
        self._place = Place(folder)
        self._settling = Settling(settings.settle_seconds)
        self._trouble = Trouble()
        self._stopped = threading.Event()
        self._wake = threading.Event()
        self._events = Events(folder, self._wake.set, recursive=settings.recursive)
        self._in_hand: set[Future[Answer]] = set()
        self._forgotten_at = time.monotonic()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch. Raises StorageError when its memory cannot be used."""
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="folder")
        self._thread.start()
        opened.result()

    def stop(self) -> None:
        """Take nothing more in; what was handed to the queue stays there."""
        self._stopped.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def described(self) -> str:
        """Return one line for the log."""
        return f"folder {self._place.path}, looked at every {self._settings.poll_seconds:g} s"

    def _run(self, opened: Future[None]) -> None:
        try:
            # SQLite's connections belong to the thread that made them.
            self._memory = Memory(self._memory_file)
        except FedMedClipError as error:
            opened.set_exception(error)
            return
        self._intake = Intake(
            self._place, self._queue.spool.incoming, self._memory, self._settling, self._trouble
        )
        opened.set_result(None)
        try:
            while not self._stopped.is_set():
                began = time.monotonic()
                self._wake.clear()
                pause = self._look()
                took = time.monotonic() - began
                least = took * (1 / _SHARE_OF_TIME - 1)
                # An event ends the second wait only.
                if not self._stopped.wait(least if pause > 0 else 0.0):
                    self._wake.wait(max(0.0, pause - least))
        finally:
            self._events.stop()
            self._memory.close()

    def _look(self) -> float:
        """Look once, take what has settled, and return the seconds until the next look."""
        settings = self._settings
        if fault := self._place.fault():
            self._trouble.begins("place", fault)
            self._events.stop()
            return settings.poll_seconds
        self._trouble.ends("place", f"the folder {self._place.path} is back")
        look = Look()
        try:
            self._events.follow()
            settled, present = self._settled(look)
            more = self._take(settled)
        except QueueFullError:
            return settings.settle_seconds
        except FedMedClipError as error:
            # A full disk passes: the files wait where they lie.
            self._trouble.begins("queue", f"new files in {self._place.path} wait: {error}")
            return settings.poll_seconds
        except OSError as error:
            self._trouble.begins("look", f"{self._place.path} cannot be looked at ({error.strerror})")
            return settings.poll_seconds
        # A fault of ours with one file must not close the door to all that come later.
        except Exception as error:
            self._trouble.begins("fault", f"looking at {self._place.path}: {in_words(error)}")
            return settings.poll_seconds
        self._trouble.ends("queue", f"new files in {self._place.path} are taken again")
        self._say(look)
        if look.complete and present is not None:
            self._memory.forget(present)
            self._forgotten_at = time.monotonic()
        if more:
            return 0.0
        return (
            min(settings.settle_seconds, settings.poll_seconds)
            if len(self._settling)
            else settings.poll_seconds
        )

    def _settled(self, look: Look) -> tuple[list[Found], set[str] | None]:
        """Return the files that may be read, the oldest first; and once a day the names of all."""
        settings, now = self._settings, time.monotonic()
        unknown: set[str] = set()
        settled: list[Found] = []
        present: set[str] | None = set() if now - self._forgotten_at >= _FORGET_SECONDS else None
        for found in files_in(self._place.path, look, recursive=settings.recursive, most=settings.most_files):
            if present is not None:
                present.add(found.path)
            if self._memory.knows(found):
                continue
            unknown.add(found.path)
            if self._settling.is_settled(found, now):
                settled.append(found)
        self._settling.keep(unknown)
        settled.sort(key=lambda found: (found.stamp.modified, found.path))
        # An empty folder may be a share that is not there.
        return settled, present or None

    def _take(self, settled: list[Found]) -> bool:
        """Hand settled files to the queue; return whether some are left that could be taken at once."""
        done: list[tuple[Found, bytes]] = []
        try:
            for number, found in enumerate(settled):
                if self._stopped.is_set() or number == _TAKEN_IN_ONE_LOOK:
                    return not self._stopped.is_set()
                taken = self._intake.take(found)
                if taken is None:
                    continue
                if taken.arrival is not None and not self._hand_over(taken, taken.arrival):
                    return False
                done.append((found, taken.digest))
                if len(done) == _REMEMBERED_AT_ONCE:
                    self._remember(done)
        finally:
            self._remember(done)
        return False

    def _hand_over(self, taken: Taken, arrival: Arrival) -> bool:
        """Give an arrival to the queue when few are in hand; return False when stopped before that."""
        try:
            while len(self._in_hand) >= MOST_IN_HAND:
                self._in_hand = wait(self._in_hand, _CHECK_SECONDS, FIRST_COMPLETED).not_done
                if self._stopped.is_set():
                    return False
            accepted = self._queue.accept(arrival).result()
            if not accepted.known:
                self._in_hand.add(self._queue.wait(accepted.id))
            return True
        except OSError as error:
            raise StorageError(f"the queue cannot take them ({error.strerror})") from error
        finally:
            taken.clear()

    def _remember(self, done: list[tuple[Found, bytes]]) -> None:
        if done:
            self._memory.remember(done)
            for found, _ in done:
                self._settling.done(found.path)
            done.clear()

    def _say(self, look: Look) -> None:
        if look.faults:
            more = f", and {len(look.faults) - 1} more" if len(look.faults) > 1 else ""
            self._trouble.begins("look", f"{look.faults[0]}{more}; give the service the right to read it")
        else:
            self._trouble.ends("look", f"{self._place.path} can be read again")
        if look.too_many:
            self._trouble.begins(
                "many",
                f"{self._place.path} has more than {self._settings.most_files:,} files: the others are not "
                "looked at; move answered ones away, or raise most_files in [folder]",
            )
        else:
            self._trouble.ends("many", f"all files of {self._place.path} are looked at again")
