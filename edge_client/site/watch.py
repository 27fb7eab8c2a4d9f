"""What the site's loop lets others see: where it stands now, and what has happened.

The loop alone writes. `now` is replaced whole, so that any thread may read it, also while a round trains.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from fedmedclip.edge_client.site.events import Events
from fedmedclip.edge_client.site.standing import Now, Standing
from fedmedclip.protocol.errors import StorageError

log = logging.getLogger("fedmedclip.site")

_LOOK_SECONDS = 0.2


class Observer(Protocol):
    """Who is told, in the loop's thread, what the agent's parts do."""

    def note(self, kind: str, words: str) -> None:
        """Something has happened."""

    def trains(self, round_number: int) -> None:
        """The training of a round begins."""


class Nobody:
    """Looks at nothing: for agents that nobody watches."""

    def note(self, kind: str, words: str) -> None:
        """Something has happened."""

    def trains(self, round_number: int) -> None:
        """The training of a round begins."""


class Watch:
    """The `Observer` of a site's process. `standing` gives where the agent stands."""

    def __init__(
        self, events: Events, standing: Callable[[], Standing], clock: Callable[[], float] = time.time
    ) -> None:
        self._events = events
        self._standing = standing
        self._clock = clock
        self._looked_at = 0.0
        self.now = Now(False, clock())
        """Where the site stands, as of the last look."""

    def note(self, kind: str, words: str) -> None:
        """Take note of an event."""
        self._events.note(kind, words)

    def trains(self, round_number: int) -> None:
        """Show that a round is being trained, before the loop does nothing else for a while."""
        self._show(self.now.connected, round_number)
        self._write(at_once=True)

    def connection(self, *, stands: bool, words: str) -> None:
        """Take note that the connection was made, or was lost."""
        self.note("connected" if stands else "disconnected", words)
        self.now = Now(stands, self._clock(), self._standing())

    def look(self) -> None:
        """Take note of where the agent stands: cheap enough for every turn of the loop."""
        now = self._clock()
        if not 0 <= now - self._looked_at < _LOOK_SECONDS:
            self._looked_at = now
            self._show(self.now.connected, None)
            self._write()

    def end(self) -> None:
        """Store what happened last."""
        self.note("stopped", "this site's process was stopped")
        self._write(at_once=True)

    def _write(self, *, at_once: bool = False) -> None:
        """Store what happened. Nothing depends on it: what needs the disk says so by itself."""
        try:
            self._events.write(at_once=at_once)
        except StorageError as error:
            log.warning("what happened here is not recorded: %s", error)

    def _show(self, connected: bool, trains: int | None) -> None:
        self.now = Now(connected, self.now.since, self._standing(), trains)
