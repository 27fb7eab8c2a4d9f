"""The aggregator's durable state: one SQLite file.

Every method is one transaction, on disk when it returns. An update is keyed by
(round, site): storing it twice changes nothing, so a message that the broker delivers again counts once.
"""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.messages import Plan, Update

_SCHEMA = """
CREATE TABLE IF NOT EXISTS federation (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB, head BLOB, residual BLOB,
    codec_memory BLOB);
CREATE TABLE IF NOT EXISTS sites (name TEXT PRIMARY KEY, public_key BLOB, samples INTEGER);
CREATE TABLE IF NOT EXISTS uploads (site TEXT PRIMARY KEY, message BLOB);
CREATE TABLE IF NOT EXISTS upload_blocks (site TEXT, number INTEGER, data BLOB, PRIMARY KEY (site, number));
CREATE TABLE IF NOT EXISTS updates (
    round_number INTEGER, site TEXT, samples INTEGER, size INTEGER, payload BLOB,
    PRIMARY KEY (round_number, site));
CREATE TABLE IF NOT EXISTS versions (
    version INTEGER PRIMARY KEY, head_digest BLOB, payload BLOB, payload_digest BLOB);
"""


@dataclass(frozen=True)
class StoredVersion:
    """A version's digest and the encoded delta from the version before (empty for version 0)."""

    version: int
    head_digest: bytes
    payload: bytes


@dataclass(frozen=True)
class StoredHead:
    """The newest global head, the broadcast's residual (None before round 1) and its codec's memory."""

    head: bytes
    residual: bytes | None
    codec_memory: bytes


@dataclass(frozen=True)
class StoredUpdate:
    """A site's encoded delta and the number of samples behind it."""

    site: str
    samples: int
    payload: bytes


class Store:
    """Opens or creates the state at `path`. Raises StorageError when it cannot be read or written."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Open it; `durable` as in `Database`."""
        self._database = Database(path, _SCHEMA, durable=durable)

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def begin(self, plan: Plan, head: bytes, head_digest: bytes) -> None:
        """Record the plan and version 0 of a new federation."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO federation VALUES (1, ?, ?, NULL, x'')", (msgspec.msgpack.encode(plan), head)
            )
            database.execute("INSERT INTO versions VALUES (0, ?, x'', x'')", (head_digest,))

    def plan(self) -> Plan | None:
        """Return the plan of the federation that lives here, or None when none has begun."""
        row = self._database.row("SELECT plan FROM federation")
        return None if row is None else msgspec.msgpack.decode(row[0], type=Plan)

    def head(self) -> StoredHead:
        """Return the newest global head, and what the broadcast's encoder keeps between rounds."""
        return StoredHead(*self._database.row("SELECT head, residual, codec_memory FROM federation"))

    def newest_version(self) -> StoredVersion:
        """Return the newest version."""
        return StoredVersion(
            *self._database.row(
                "SELECT version, head_digest, payload FROM versions ORDER BY version DESC LIMIT 1"
            )
        )

    def versions_after(self, version: int) -> list[StoredVersion]:
        """Return all versions after `version`, oldest first."""
        query = "SELECT version, head_digest, payload FROM versions WHERE version > ? ORDER BY version"
        return [StoredVersion(*row) for row in self._database.rows(query, (version,))]

    def payload_with_digest(self, digest: bytes) -> bytes | None:
        """Return the encoded delta whose SHA-256 this is, of whatever version."""
        row = self._database.row("SELECT payload FROM versions WHERE payload_digest = ?", (digest,))
        return None if row is None else row[0]

    def sites(self) -> dict[str, bytes]:
        """Return the public key of each site that was admitted."""
        return dict(self._database.rows("SELECT name, public_key FROM sites"))

    def admit(self, site: str, public_key: bytes, samples: int) -> None:
        """Record a site and pin its public key."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO sites VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET samples = excluded.samples",
                (site, public_key, samples),
            )

    def begin_upload(self, site: str, update: Update) -> None:
        """Record that an update's blocks will follow; a different upload of this site is forgotten."""
        encoded = msgspec.msgpack.encode(update)
        with self._database.transaction() as database:
            if (encoded,) not in database.execute("SELECT message FROM uploads WHERE site = ?", (site,)):
                _forget_upload(database, site)
                database.execute("INSERT INTO uploads VALUES (?, ?)", (site, encoded))

    def add_block(self, site: str, number: int, data: bytes) -> None:
        """Record one block of the site's upload."""
        with self._database.transaction() as database:
            database.execute("INSERT OR IGNORE INTO upload_blocks VALUES (?, ?, ?)", (site, number, data))

    def uploads(self) -> dict[str, tuple[Update, dict[int, bytes]]]:
        """Return the uploads under way: each site's update message and the blocks that have arrived."""
        found: dict[str, tuple[Update, dict[int, bytes]]] = {}
        for site, message in self._database.rows("SELECT site, message FROM uploads"):
            blocks = self._database.rows("SELECT number, data FROM upload_blocks WHERE site = ?", (site,))
            found[site] = (msgspec.msgpack.decode(message, type=Update), dict(blocks))
        return found

    def forget_upload(self, site: str) -> None:
        """Drop the site's upload and its blocks."""
        with self._database.transaction() as database:
            _forget_upload(database, site)

    def add_update(self, round_number: int, site: str, samples: int, payload: bytes) -> None:
        """Record a complete, valid update, and forget the upload that it came from."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO updates VALUES (?, ?, ?, ?, ?)",
                (round_number, site, samples, len(payload), payload),
            )
            _forget_upload(database, site)

    def has_update(self, round_number: int, site: str) -> bool:
        """Whether this site's update for this round was stored, however long ago."""
        query = "SELECT 1 FROM updates WHERE round_number = ? AND site = ?"
        return self._database.row(query, (round_number, site)) is not None

    def updated_sites(self, round_number: int) -> list[str]:
        """Return the names of the sites whose update for this round is stored, sorted."""
        query = "SELECT site FROM updates WHERE round_number = ? ORDER BY site"
        return [site for (site,) in self._database.rows(query, (round_number,))]

    def updates(self, round_number: int, sites: tuple[str, ...]) -> Iterator[StoredUpdate]:
        """Yield the updates of a round one at a time, in the order of `sites`."""
        query = "SELECT site, samples, payload FROM updates WHERE round_number = ? AND site = ?"
        for site in sites:
            yield StoredUpdate(*self._database.row(query, (round_number, site)))

    def advance(self, made: StoredVersion, newest: StoredHead) -> None:
        """Make `made` the newest version. The round's payloads go; that they were counted stays on record."""
        payload_digest = hashlib.sha256(made.payload).digest()
        with self._database.transaction() as database:
            database.execute(
                "UPDATE federation SET head = ?, residual = ?, codec_memory = ?",
                (newest.head, newest.residual, newest.codec_memory),
            )
            database.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?)",
                (made.version, made.head_digest, made.payload, payload_digest),
            )
            database.execute("UPDATE updates SET payload = NULL WHERE round_number <= ?", (made.version,))
            database.execute("DELETE FROM uploads")
            database.execute("DELETE FROM upload_blocks")


def _forget_upload(database: sqlite3.Connection, site: str) -> None:
    database.execute("DELETE FROM uploads WHERE site = ?", (site,))
    database.execute("DELETE FROM upload_blocks WHERE site = ?", (site,))
