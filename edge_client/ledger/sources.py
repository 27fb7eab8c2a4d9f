"""What the newest updates were made of: kept in the site's database, so that they can be made again."""

import sqlite3

import msgspec

from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import compress_within
from fedmedclip.protocol.database import Database, checksum
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import PrivacySpent

MOST_BYTES = 64 << 20
"""What is kept takes no more than this, or one update where one is larger."""

SOURCES_SCHEMA = """
CREATE TABLE IF NOT EXISTS update_sources (
    number INTEGER PRIMARY KEY, run INTEGER NOT NULL, round_number INTEGER NOT NULL,
    attempt INTEGER NOT NULL, size INTEGER NOT NULL, source BLOB NOT NULL, checksum BLOB NOT NULL)
"""


class UpdateSource(msgspec.Struct, frozen=True):
    """All that an update is a function of.

    `delta` is what the round changed, as the bytes of the head's specification, `residual` what was owed
    before it (None: nothing yet), `memory` what the codec remembered; `limit` is the norm to which it was
    shortened. `software` is the version that made it.
    """

    run: int
    plan_identity: bytes
    round_number: int
    method: str
    embedding_size: int
    classes: int | None
    codec: str
    limit: float
    samples: int
    privacy: PrivacySpent | None
    delta: bytes
    residual: bytes | None
    memory: bytes
    software: str

    def encoded(self) -> bytes:
        """Make the update's bytes again, with the codec of today.

        Raises InvalidInputError for a method or codec that is not here any more, HeadError where the method's
        arrays are others now.
        """
        specification = shared_head_specification(self.method, self.embedding_size, self.classes)
        residual = None if self.residual is None else specification.from_bytes(self.residual)
        made = compress_within(
            self.limit,
            delta_codec_named(self.codec),
            specification.from_bytes(self.delta),
            residual,
            self.memory,
            specification,
        )
        return made.encoded


def record_source(database: sqlite3.Connection, source: UpdateSource, attempt: int, most_rounds: int) -> None:
    """Keep what an update is made of, inside the transaction that stores it; older ones make room."""
    encoded = msgspec.msgpack.encode(source)
    database.execute(
        "INSERT INTO update_sources (run, round_number, attempt, size, source, checksum)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (source.run, source.round_number, attempt, len(encoded), encoded, checksum(encoded)),
    )
    total, kept = 0, 0
    rows = database.execute("SELECT number, size FROM update_sources ORDER BY number DESC").fetchall()
    for number, size in rows:
        total, kept = total + size, kept + 1
        if kept > 1 and (kept > most_rounds or total > MOST_BYTES):
            database.execute("DELETE FROM update_sources WHERE number <= ?", (number,))
            return


class UpdateSources:
    """What is kept, to read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, run: int, round_number: int, attempt: int) -> UpdateSource | None:
        """Return what an update was made of, None where that is not kept any more. Raises StorageError."""
        row = self._database.row(
            "SELECT source, checksum FROM update_sources WHERE run = ? AND round_number = ? AND attempt = ?"
            " ORDER BY number DESC",
            (run, round_number, attempt),
        )
        if row is None:
            return None
        if checksum(row[0]) != row[1]:
            raise self._database.damaged(
                f"what the update of round {round_number} was made of", "nothing but its replay needs it"
            )
        return self._database.decoded(row[0], UpdateSource, "what an update was made of")
