"""A durable SQLite file: what a party must not forget when it is killed."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmedclip.protocol.errors import StorageError


class Database:
    """Opens or creates the file at `path` with the tables of `schema` (idempotent SQL).

    A transaction is on disk when its block ends (write-ahead log, synchronous=FULL), and either all of it is.
    With `durable` off it is on disk some time later: for simulations, whose files outlive nobody.
    Raises StorageError with one line for a damaged file, a full disk, or a lock held for 30 s.
    """

    def __init__(self, path: Path, schema: str, *, durable: bool = True) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            self._connection.executescript(schema)
        except (sqlite3.Error, OSError) as error:
            raise self._explain(error) from error

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to write with; all of the block is stored, or nothing when it raises."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Return all rows of a query."""
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def row(self, query: str, parameters: tuple[object, ...] = ()) -> Any:
        """Return the first row of a query, or None."""
        found = self.rows(query, parameters)
        return found[0] if found else None

    def _explain(self, error: Exception) -> StorageError:
        if "disk is full" in str(error) or "No space" in str(error):
            advice = "the disk is full; what was acknowledged is safe: free some space and start again"
        elif "locked" in str(error):
            advice = "another process holds it: stop that one first"
        elif isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            advice = "the file is damaged: restore it from a copy or move it away"
        else:
            advice = "check the path and its permissions"
        return StorageError(f"cannot use {self.path}: {error}; {advice}")
