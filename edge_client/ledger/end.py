"""What the site's database knows of the ledger: its end, so that one that was cut is found; its totals."""

import msgspec

from fedmedclip.edge_client.ledger.entry import NO_HASH
from fedmedclip.edge_client.ledger.totals import Key
from fedmedclip.protocol.database import Database

END_SCHEMA = """
CREATE TABLE IF NOT EXISTS ledger_end (
    id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, hash TEXT NOT NULL,
    segment INTEGER NOT NULL, position INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ledger_totals (
    quarter INTEGER NOT NULL, direction TEXT NOT NULL, kind TEXT NOT NULL, messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL, PRIMARY KEY (quarter, direction, kind))
"""


class Mark(msgspec.Struct, frozen=True):
    """An entry that the ledger has: number and hash, and where in which segment its line ends."""

    number: int = 0
    hash: str = NO_HASH
    segment: int = 1
    position: int = 0


class LedgerEnd:
    """The newest entry of the ledger as a database knows it, and the totals up to there.

    The ledger itself may be a little further: it is written first. It is never shorter.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self) -> Mark | None:
        """Return the newest entry that is known; None before the first."""
        row = self._database.row("SELECT number, hash, segment, position FROM ledger_end")
        return None if row is None else Mark(*row)

    def totals(self) -> dict[Key, tuple[int, int]]:
        """Return messages and bytes by quarter, direction and kind."""
        rows = self._database.rows("SELECT quarter, direction, kind, messages, bytes FROM ledger_totals")
        return {(quarter, direction, kind): (*counts,) for quarter, direction, kind, *counts in rows}

    def keep(self, mark: Mark, changed: dict[Key, tuple[int, int]], gone: list[Key]) -> None:
        """Store the end and the totals that go with it, in one transaction."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO ledger_end VALUES (1, ?, ?, ?, ?)",
                (mark.number, mark.hash, mark.segment, mark.position),
            )
            database.executemany(
                "INSERT OR REPLACE INTO ledger_totals VALUES (?, ?, ?, ?, ?)",
                [(*key, *counts) for key, counts in changed.items()],
            )
            database.executemany(
                "DELETE FROM ledger_totals WHERE quarter = ? AND direction = ? AND kind = ?", gone
            )

    def forget_totals(self) -> None:
        """Drop the totals: they are counted anew from a ledger that the database does not know."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM ledger_totals")
