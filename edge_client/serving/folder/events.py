"""What the system tells of changes in a folder: a reason to look at once, and never the only one."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from fedmedclip.edge_client.serving.folder.listing import is_passed_over

log = logging.getLogger("fedmedclip.serving.folder")

_STEP_MILLISECONDS = 250


class Events:
    """Calls `changed` from a thread of its own, while the folder is the one that `follow` found last."""

    def __init__(self, folder: Path, changed: Callable[[], None], *, recursive: bool) -> None:
        self._folder = folder
        self._changed = changed
        self._recursive = recursive
        self._identity: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def follow(self) -> None:
        """Watch the folder that is there now: another one may have come in its place, such as a mount."""
        status = os.stat(self._folder)
        identity = status.st_dev, status.st_ino
        if identity != self._identity:
            self.stop()
            self._identity, self._stop = identity, threading.Event()
            self._thread = threading.Thread(target=self._watch, args=(self._stop,), name="folder events")
            self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._identity = None

    def _watch(self, stop: threading.Event) -> None:
        from watchfiles import watch

        try:
            for _ in watch(
                self._folder,
                watch_filter=lambda _, path: not is_passed_over(os.path.basename(path)),
                stop_event=stop,
                step=_STEP_MILLISECONDS,
                recursive=self._recursive,
                force_polling=False,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                self._changed()
        # The library raises the system's errors, such as too many watches, as several kinds.
        except (OSError, RuntimeError) as error:
            log.info("no events of %s (%s): it is looked at from time to time", self._folder, error)
