"""What happened at a site, for its operator: the newest events, in the database of its state.

They are shown and nothing depends on them: they are written at most once a second, all that came meanwhile in
one transaction, and a kill may lose the last ones.
"""

import time
from collections.abc import Callable

import msgspec

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.visible import visible

EVENTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, happened_at REAL NOT NULL, kind TEXT NOT NULL, words TEXT NOT NULL);
"""

MOST_EVENTS = 1000
_MOST_PENDING = 200
_LONGEST_WORDS = 400
_SECONDS_BETWEEN_WRITES = 1.0


class Event(msgspec.Struct, frozen=True):
    """What happened at `at`, in seconds since 1970: a kind, and a sentence."""

    at: float
    kind: str
    words: str


class Events:
    """The newest `MOST_EVENTS` events. `clock` gives the seconds since 1970."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._pending: list[Event] = []
        self._written_at = 0.0

    def note(self, kind: str, words: str) -> None:
        """Take note of an event; it is stored with the next `write`."""
        # Whoever makes a site reconnect all day is not to fill its memory.
        if len(self._pending) < _MOST_PENDING:
            self._pending.append(Event(self._clock(), kind, visible(words[:_LONGEST_WORDS])))

    def write(self, *, at_once: bool = False) -> None:
        """Store what came since, if anything did and the last time is not a moment ago."""
        now = self._clock()
        if not self._pending or (not at_once and 0 <= now - self._written_at < _SECONDS_BETWEEN_WRITES):
            return
        # What a disk does not take is let go: it is only shown.
        pending, self._pending, self._written_at = self._pending, [], now
        with self._database.transaction() as database:
            database.executemany(
                "INSERT INTO events (happened_at, kind, words) VALUES (?, ?, ?)",
                [(event.at, event.kind, event.words) for event in pending],
            )
            database.execute(
                "DELETE FROM events WHERE number <= (SELECT max(number) FROM events) - ?", (MOST_EVENTS,)
            )

    def newest(self, most: int = MOST_EVENTS) -> list[Event]:
        """Return the newest events that are stored, oldest first."""
        rows = self._database.rows(
            "SELECT happened_at, kind, words FROM events ORDER BY number DESC LIMIT ?", (most,)
        )
        return [Event(*row) for row in reversed(rows)]
