"""Which files of the folder are dealt with: durable, so that a restart reads none of them again.

A file is known by its path, size, time and inode; only when one of them differs is it read, and only other
content makes it new. What is gone is remembered for a while: a share may come back.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from fedmedclip.edge_client.serving.folder.listing import Found, Stamp
from fedmedclip.protocol.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    inode BLOB NOT NULL,
    digest BLOB NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID
"""
REMEMBERED_DAYS = 30.0
"""How long a file that is gone is remembered after it was answered."""

NO_IMAGE = b""
"""The digest of what is no image, and is not answered."""


class Memory:
    """Keeps the file at `path`. Raises StorageError. Of one thread."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)
        self._stamps = {
            os.fsdecode(name): Stamp(size, modified, int.from_bytes(inode, "little"))
            for name, size, modified, inode in self._database.rows(
                "SELECT path, size, modified, inode FROM files"
            )
        }

    def knows(self, found: Found) -> bool:
        """Whether the file is dealt with, and by its stamp the same still."""
        return self._stamps.get(found.path) == found.stamp

    def digest(self, path: str) -> bytes | None:
        """Return the digest of what was there when the file was dealt with; None where it was not."""
        row = self._database.row("SELECT digest FROM files WHERE path = ?", (os.fsencode(path),))
        return None if row is None else bytes(row[0])

    def remember(self, files: Iterable[tuple[Found, bytes]]) -> None:
        """Store files that are dealt with, each with the digest of its content, all at once."""
        now = time.time()
        known = list(files)
        with self._database.transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (
                        os.fsencode(path),
                        stamp.size,
                        stamp.modified,
                        # Inodes have 64 bits without a sign, which SQLite's integers have not.
                        stamp.inode.to_bytes(16, "little"),
                        digest,
                        now,
                    )
                    for (path, stamp), digest in known
                ],
            )
        self._stamps.update(found for found, _ in known)

    def forget(self, present: set[str]) -> int:
        """Forget files that are not among `present`, dealt with long ago; return how many."""
        before = time.time() - REMEMBERED_DAYS * 86_400
        old = self._database.rows("SELECT path FROM files WHERE at < ?", (before,))
        gone = [(path,) for (path,) in old if os.fsdecode(path) not in present]
        with self._database.transaction() as database:
            database.executemany("DELETE FROM files WHERE path = ?", gone)
        for (path,) in gone:
            del self._stamps[os.fsdecode(path)]
        return len(gone)

    def close(self) -> None:
        """Release the file."""
        self._database.close()
