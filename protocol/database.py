"""A durable SQLite file: what a party must not forget when it is killed.

The file's `user_version` is the version of its tables. An older file is brought up to date when it is opened;
a newer one is refused. Large values are stored with a checksum, which is compared when they are read.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from fedmedclip.protocol.errors import FullDiskError, StorageError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.private_files import make_private

# What the write-ahead log takes between two checkpoints, which come after 1,000 pages of 4 KiB.
_LOG_BYTES = 4 << 20
# SQLite's words about a damaged file may quote it, in bytes that are no text.
_REFUSED = (sqlite3.Error, UnicodeDecodeError)

IN_MEMORY = Path(":memory:")
"""SQLite's name of a database that is no file and ends with its connection: for simulations."""

Stored = TypeVar("Stored")


class Form(Protocol):
    """How values become bytes: the module `msgspec.msgpack` or `msgspec.json`."""

    decode: Callable[..., Any]


Migration = Callable[[sqlite3.Connection], None]
"""Changes the tables of one version into those of the next."""


def checksum(*values: bytes | None) -> bytes:
    """Return the checksum of values that are stored together: 16 bytes of their SHA-256; None is no value."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(b"\xff" if value is None else len(value).to_bytes(8, "little") + value)
    return digest.digest()[:16]


def _kinds_of(schema: str) -> dict[str, dict[str, str]]:
    """Return by table and column the kinds of value that a schema allows, as SQL: `'blob', 'null'`."""
    with closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(schema)
        tables = [name for (name,) in empty.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: {
                name: f"'{declared.lower()}'" + ("" if required or key else ", 'null'")
                for _, name, declared, required, _, key in empty.execute(f"PRAGMA table_info({table})")
            }
            for table in tables
        }


def _make_files_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    make_private(path)
    # SQLite gives new files beside it the same permissions.
    for ending in ("-wal", "-shm"):
        if (beside := path.with_name(f"{path.name}{ending}")).exists():
            make_private(beside)


class Database:
    """Opens or creates the file at `path`, for its owner only, with the tables of `schema` (idempotent SQL).

    A transaction is on disk when its block ends (write-ahead log, synchronous=FULL), and either all of it is.
    With `durable` off it is on disk some time later: for simulations, whose files outlive nobody.
    Raises StorageError with one line for a damaged file, a full disk, or a lock held for 30 s.
    """

    def __init__(
        self, path: Path, schema: str, *, durable: bool = True, migrations: Sequence[Migration] = ()
    ) -> None:
        self.path = path
        try:
            if path != IN_MEMORY:
                _make_files_private(path)
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
            self._connection.execute("PRAGMA journal_mode = WAL")
            # Else the log keeps for ever the size that one large transaction or slow reader gave it.
            self._connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            self._bring_up_to_date(schema, migrations)
        except (*_REFUSED, OSError) as error:
            raise self._explain(error) from error

    def _bring_up_to_date(self, schema: str, migrations: Sequence[Migration]) -> None:
        newest = 1 + len(migrations)
        (found,) = self._connection.execute("PRAGMA user_version").fetchone()
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if found > newest:
            raise StorageError(
                f"cannot use {self.path}: it was written by a newer version of this software "
                f"(its tables have version {found}, this software knows {newest}); update fedmedclip"
            )
        with self.transaction() as database:
            if tables:
                # Files of before there was a number have version 0: they are of version 1.
                for migrate in migrations[max(1, found) - 1 :]:
                    migrate(database)
            for statement in filter(str.strip, schema.split(";")):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {newest}")
        self._require_kinds(schema)

    def _require_kinds(self, schema: str) -> None:
        """Refuse values of another kind than their column's, which SQLite itself would hand out.

        Looks at the heads of the rows alone, however large the values are.
        """
        for table, columns in _kinds_of(schema).items():
            wrong = " OR ".join(f"typeof({name}) NOT IN ({kinds})" for name, kinds in columns.items())
            if self._connection.execute(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1").fetchone():
                raise self.damaged(
                    f"the table {table!r}",
                    "restore a backup or move the file away",
                    "a value in it is of another kind than its column",
                )

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to write with; all of the block is stored, or nothing when it raises.

        Inside another one, a block that raises leaves nothing, and the rest is stored with the outer one.
        """
        begin, commit, undo = (
            ("SAVEPOINT part", "RELEASE part", ("ROLLBACK TO part", "RELEASE part"))
            if self._connection.in_transaction
            else ("BEGIN IMMEDIATE", "COMMIT", ("ROLLBACK",))
        )
        try:
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute(commit)
            except BaseException:
                if self._connection.in_transaction:
                    for statement in undo:
                        self._connection.execute(statement)
                raise
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy while the file is in use (SQLite's online backup)."""
        try:
            make_private(path)
            with closing(sqlite3.connect(path)) as copy:
                self._connection.backup(copy)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"cannot write the copy {path}: {error}") from error

    def damaged(self, what: str, advice: str, how: str = "its checksum is wrong") -> StorageError:
        """Return the error for a value that is not what was stored."""
        return StorageError(f"{self.path}: {what} is damaged ({how}); {advice}")

    def decoded(self, encoded: bytes, kind: type[Stored], what: str, form: Form = msgspec.msgpack) -> Stored:
        """Return a stored value; StorageError, which calls it `what`, when it is damaged."""
        try:
            found: Stored = form.decode(encoded, type=kind)
            return found
        except MALFORMED as error:
            raise self.damaged(what, "restore a backup or move the file away", str(error)) from error

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[Any]:
        """Return all rows of a query."""
        try:
            return self._connection.execute(query, parameters).fetchall()
        except _REFUSED as error:
            raise self._explain(error) from error

    def row(self, query: str, parameters: tuple[object, ...] = ()) -> Any:
        """Return the first row of a query, or None."""
        found = self.rows(query, parameters)
        return found[0] if found else None

    def _explain(self, error: Exception) -> StorageError:
        kind = StorageError
        if "disk is full" in str(error) or "No space" in str(error):
            kind = FullDiskError
            advice = "the disk is full; what was acknowledged is safe: free some space and start again"
        elif "locked" in str(error):
            advice = "another process holds it: stop that one first"
        elif not isinstance(error, sqlite3.OperationalError | OSError):
            advice = "the file is damaged: restore it from a copy or move it away"
        else:
            advice = "check the path and its permissions"
        return kind(f"cannot use {self.path}: {error}; {advice}")
