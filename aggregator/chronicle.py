"""What has happened in a federation, for people: when, at which site, in words. Bounded, and in the store.

    what the rounds are told -> `Chronicle.note` -> memory -> once a second at most, one transaction

So no message waits for the disk because of it, and a disk that is full costs words, never a round. Who is
killed forgets the last second.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.aggregator")

CHRONICLE_SCHEMA = """
CREATE TABLE IF NOT EXISTS chronicle (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, site TEXT NOT NULL, kind TEXT NOT NULL,
    round_number INTEGER NOT NULL, words TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS chronicle_by_site ON chronicle (site, id);
"""

Kind = Literal[
    "started", "joined", "online", "offline", "removed", "delivered", "refused", "excused", "quarantined",
    "released", "made", "rolled back", "restored", "overdue", "command",
]  # fmt: skip

MOST_OF_A_SITE, MOST_OF_ALL = 300, 50_000
"""So many are kept of a site, and of none, and in all: nobody crowds out what others did."""
RECENT = 5_000
_WRITE_EVERY_SECONDS = 1.0
_LONGEST_WORDS = 300


class Happening(msgspec.Struct, frozen=True):
    """What happened at `at` (seconds since 1970) while `round_number` was open; `site` is empty where it is
    of none. `words` say more than `kind` does, or nothing.
    """

    at: float
    site: str
    kind: str
    round_number: int
    words: str


class ChronicleTable:
    """The happenings in an aggregator's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, happenings: Sequence[Happening]) -> None:
        """Write down what happened, and forget the oldest of those of whom there is too much."""
        sites = {happening.site for happening in happenings}
        with self._database.transaction() as database:
            database.executemany(
                "INSERT INTO chronicle (at, site, kind, round_number, words) VALUES (?, ?, ?, ?, ?)",
                [msgspec.structs.astuple(happening) for happening in happenings],
            )
            database.executemany(
                "DELETE FROM chronicle WHERE site = ? AND id <= (SELECT id FROM chronicle WHERE site = ?"
                f" ORDER BY id DESC LIMIT 1 OFFSET {MOST_OF_A_SITE})",
                [(site, site) for site in sites],
            )
            database.execute(
                "DELETE FROM chronicle WHERE id <="
                f" (SELECT id FROM chronicle ORDER BY id DESC LIMIT 1 OFFSET {MOST_OF_ALL})"
            )

    def newest(self, number: int = RECENT) -> list[Happening]:
        """Return the newest happenings, the oldest of them first."""
        query = "SELECT at, site, kind, round_number, words FROM chronicle ORDER BY id DESC LIMIT ?"
        return [Happening(*row) for row in reversed(self._database.rows(query, (number,)))]


class Chronicle:
    """What one aggregator notes. `recent` holds the newest, those of before its start included."""

    def __init__(self, table: ChronicleTable, wall_clock: Callable[[], float]) -> None:
        """`wall_clock` gives the seconds since 1970."""
        self._table = table
        self._wall_clock = wall_clock
        self._unwritten: deque[Happening] = deque(maxlen=RECENT)
        self._written_at: float | None = None
        self._fails = False
        self.round_number = 0
        """The round that is open."""
        self.count = 0
        """How much was noted since the start: another number whenever there is something new."""
        self.recent: deque[Happening] = deque(table.newest(), maxlen=RECENT)

    def note(self, kind: Kind, site: str = "", words: str = "") -> None:
        """Note what happens now, in memory."""
        cut = visible(words)[:_LONGEST_WORDS]
        happening = Happening(self._wall_clock(), site, kind, self.round_number, cut)
        self._unwritten.append(happening)
        self.recent.append(happening)
        self.count += 1

    def write(self, now: float | None = None) -> None:
        """Put what was noted on the disk, where the last time is a second ago; without `now`, at once.

        What cannot be written is forgotten, with a warning. `now` is a reading of a monotonic clock.
        """
        if not self._unwritten:
            return
        if now is not None and self._written_at is not None and now - self._written_at < _WRITE_EVERY_SECONDS:
            return
        self._written_at = now
        try:
            self._table.add(list(self._unwritten))
            self._fails = False
        except StorageError as error:
            if not self._fails:
                log.warning("what happens is not written down: %s", error)
            self._fails = True
        self._unwritten.clear()
