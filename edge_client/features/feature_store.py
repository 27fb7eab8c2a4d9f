"""The feature store: every embedding that the frozen encoder ever gave at this site, in one SQLite file.

An embedding is keyed by the digest of its bundle and by the image's key, a hash of the file's content and of
how it was read (`images.ImageIdentity`), so that renamed images, restarts and further federations find it
again, and another encoder or another window never does. What is put is on the disk when `put_many` returns.
The file is for its owner only.
Beside the embeddings stand the images' appearances (`images.appearance`), by the same key: a thumbnail of
32 x 32 grey values each. Nothing else is in the file: no name, no path, nothing from a header. Behind each
embedding and appearance stands a checksum; one that does not match is as good as absent.

Other than the durable state in `protocol.database`, it is a cache that several processes share: opening it
at the same instant is safe (switching to a write-ahead log is not), it stays one file that can be copied,
and damage to it costs time, not data.
"""

import fcntl
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.images.appearance import APPEARANCE_VERSION, Appearance
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.private_files import make_private

Embedding = npt.NDArray[np.float32]
Result = TypeVar("Result")

log = logging.getLogger("fedmedclip.features")

# Marks the file as a feature store ("FMCE"), and its layout.
_APPLICATION_ID = 0x464D4345
_LAYOUT = 2
_BUSY_SECONDS = 60
# SQLite's 4096 would hold one embedding of 512 floats and waste the other half.
_PAGE_BYTES = 16384
_CHECKSUM_BYTES = 4
# Older builds of SQLite take no more than 999 parameters in one statement.
_KEYS_PER_QUERY = 500


class FeatureStore:
    """An open feature store; a context manager. One instance belongs to the thread that made it.

    A damaged file is set aside (renamed, and said so in the log and in `set_aside`) and an empty store
    takes its place: all it costs is to compute the embeddings again.
    """

    def __init__(self, path: Path) -> None:
        """Open the store, made when missing. Raises StorageError when that is not possible."""
        self.path = path
        self.set_aside: Path | None = None
        self._connection: sqlite3.Connection | None = None
        self._file_identity: tuple[int, int] | None = None
        self._run(lambda connection: None)

    def get_many(self, bundle_digest: bytes, keys: Iterable[bytes]) -> dict[bytes, Embedding]:
        """Return the stored embeddings, read-only float32 (D,), of those images that have one undamaged.

        Raises StorageError.
        """
        found: dict[bytes, Embedding] = {}
        damaged = 0
        remaining = iter(keys)
        while some := list(islice(remaining, _KEYS_PER_QUERY)):
            rows = self._run(partial(_select, bundle_digest=bundle_digest, keys=some))
            sound = {key: sealed[:-_CHECKSUM_BYTES] for key, sealed in rows if _is_sound(sealed)}
            damaged += len(rows) - len(sound)
            found |= {key: np.frombuffer(vector, dtype="<f4") for key, vector in sound.items()}
        if damaged:
            log.warning("feature store %s: %d damaged embeddings are computed again", self.path, damaged)
        return found

    def put_many(self, bundle_digest: bytes, embeddings: Mapping[bytes, Embedding]) -> None:
        """Store embeddings, float32 (D,) by key, all or none; one that is there is replaced.

        Raises StorageError when they cannot be stored, a full disk included; what was stored before
        is not touched by that.
        """
        rows = [
            (bundle_digest, key, _sealed(np.asarray(vector, dtype="<f4").tobytes()))
            for key, vector in embeddings.items()
        ]
        self._run(partial(_insert, rows=rows))

    def get_appearances(self, keys: Iterable[bytes]) -> dict[bytes, Appearance]:
        """Return the stored appearances of those images that have an undamaged one. Raises StorageError."""
        found: dict[bytes, Appearance] = {}
        remaining = iter(keys)
        while some := list(islice(remaining, _KEYS_PER_QUERY)):
            for key, sealed in self._run(partial(_select_appearances, keys=some)):
                appearance = Appearance.from_bytes(sealed[:-_CHECKSUM_BYTES])
                if appearance is not None and _is_sound(sealed):
                    found[key] = appearance
        return found

    def put_appearances(self, appearances: Mapping[bytes, Appearance]) -> None:
        """Store appearances by key, all or none. Raises StorageError as `put_many` does."""
        rows = [
            (key, APPEARANCE_VERSION, _sealed(appearance.to_bytes()))
            for key, appearance in appearances.items()
        ]
        self._run(partial(_insert_appearances, rows=rows))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, operation: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run an operation; once more, on an empty store, when the file turns out to be damaged."""
        try:
            try:
                return operation(self._open())
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_damaged_file_aside(error)
            return operation(self._open())
        except sqlite3.Error as error:
            raise StorageError(f"feature store {self.path} {_explanation(error)}") from error
        except OSError as error:
            raise StorageError(f"feature store {self.path}: {error.strerror}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make_private(self.path)
            # Before SQLite opens it: should the file be replaced in between, we hold the newer one.
            self._file_identity = _identity(self.path)
            # Without isolation level the transactions are ours: BEGIN IMMEDIATE waits for other writers
            # where SQLite's deferred transactions would fail at once.
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                _prepare(connection, self.path)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _set_damaged_file_aside(self, error: sqlite3.DatabaseError) -> None:
        self.close()
        with self.path.with_name(f"{self.path.name}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _identity(self.path) != self._file_identity:
                return  # Another process met the same damage first.
            names = (self.path.with_name(f"{self.path.name}.damaged-{number}") for number in count(1))
            self.set_aside = next(name for name in names if not name.exists())
            # The journal first: left behind, it would be played back into the new file.
            journal = self.path.with_name(f"{self.path.name}-journal")
            if journal.exists():
                os.replace(journal, self.set_aside.with_name(f"{self.set_aside.name}-journal"))
            os.replace(self.path, self.set_aside)
        log.warning(
            "feature store %s is damaged (%s); it is set aside as %s and its embeddings are computed again",
            self.path,
            error,
            self.set_aside.name,
        )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the table in an empty file; raise StorageError when the file is of another kind."""
    if _is_empty(connection):
        with _transaction(connection):
            if _is_empty(connection):
                connection.execute(
                    "CREATE TABLE embedding (bundle BLOB NOT NULL, image BLOB NOT NULL, vector BLOB NOT NULL,"
                    " PRIMARY KEY (bundle, image))"
                )
                connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {_LAYOUT}")
    elif (
        _pragma(connection, "application_id") == _APPLICATION_ID and _pragma(connection, "user_version") == 1
    ):
        _add_checksums(connection)
    if _pragma(connection, "application_id") != _APPLICATION_ID:
        raise StorageError(f"{path} is another program's database; give the feature store another path")
    if (layout := _pragma(connection, "user_version")) != _LAYOUT:
        raise StorageError(
            f"feature store {path} has layout {layout}, this version reads {_LAYOUT}; "
            "update fedmedclip or give another path"
        )
    # Not a layout of its own: an older version goes on with the embeddings, and overlooks this table.
    connection.execute(
        "CREATE TABLE IF NOT EXISTS appearance (image BLOB PRIMARY KEY, version INTEGER NOT NULL,"
        " seen BLOB NOT NULL)"
    )


def _add_checksums(connection: sqlite3.Connection) -> None:
    """Bring layout 1, which had no checksums, up to date."""
    with _transaction(connection):
        if _pragma(connection, "user_version") == 1:
            connection.create_function("sealed", 1, _sealed, deterministic=True)
            connection.execute("UPDATE embedding SET vector = sealed(vector)")
            connection.execute("PRAGMA user_version = 2")


def _sealed(vector: bytes) -> bytes:
    return vector + zlib.crc32(vector).to_bytes(_CHECKSUM_BYTES, "little")


def _is_sound(sealed: bytes) -> bool:
    return _sealed(sealed[:-_CHECKSUM_BYTES]) == sealed


def _select(
    connection: sqlite3.Connection, bundle_digest: bytes, keys: Sequence[bytes]
) -> list[tuple[bytes, bytes]]:
    marks = ",".join("?" * len(keys))
    return connection.execute(
        f"SELECT image, vector FROM embedding WHERE bundle = ? AND image IN ({marks})",
        [bundle_digest, *keys],
    ).fetchall()


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes, bytes]]) -> None:
    with _transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO embedding VALUES (?, ?, ?)", rows)


def _select_appearances(connection: sqlite3.Connection, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    marks = ",".join("?" * len(keys))
    return connection.execute(
        f"SELECT image, seen FROM appearance WHERE version = ? AND image IN ({marks})",
        [APPEARANCE_VERSION, *keys],
    ).fetchall()


def _insert_appearances(connection: sqlite3.Connection, rows: Sequence[tuple[bytes, int, bytes]]) -> None:
    with _transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO appearance VALUES (?, ?, ?)", rows)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, a full disk among them.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_empty(connection: sqlite3.Connection) -> bool:
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return bool(tables == 0 and _pragma(connection, "application_id") == 0)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code: the low byte of the extended one."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is damaged, or was when another process set it aside under our hands."""
    moved = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_DBMOVED
    return moved or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _explanation(error: sqlite3.Error) -> str:
    match _code(error):
        case sqlite3.SQLITE_FULL:
            return "cannot grow: the disk is full; free some space and start again, what is stored is kept"
        case sqlite3.SQLITE_IOERR:
            return f"cannot be read or written ({error}); check the disk and its free space, then start again"
        case sqlite3.SQLITE_BUSY:
            return f"has been in use by another process for {_BUSY_SECONDS} s; start again when that is done"
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return f"cannot be opened for writing ({error}); check the path and its permissions"
        case _:
            return f"failed: {error}"
