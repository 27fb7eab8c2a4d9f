"""A site's durable state: one SQLite file that a kill at any moment leaves consistent.

The private head, the residual, the codec's memory and the update of a round are stored in one transaction
before the update is sent; the update leaves the outbox only when the aggregator's receipt settles it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.messages import Plan

_SCHEMA = """
CREATE TABLE IF NOT EXISTS site (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB, version INTEGER, finished INTEGER,
    trained_round INTEGER, shared_head BLOB, private_head BLOB, residual BLOB,
    codec_memory BLOB);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY CHECK (id = 1), round_number INTEGER, samples INTEGER, payload BLOB,
    residual_if_refused BLOB, codec_memory_if_refused BLOB);
CREATE TABLE IF NOT EXISTS journal (version INTEGER PRIMARY KEY, report BLOB);
"""


@dataclass(frozen=True)
class StoredSite:
    """Where the site stands. Heads and residual are the bytes of their specifications' `to_bytes`.

    `codec_memory` is what the update's encoder keeps between rounds.
    """

    plan: Plan
    version: int
    finished: bool
    trained_round: int
    shared_head: bytes
    private_head: bytes
    residual: bytes | None
    codec_memory: bytes


@dataclass(frozen=True)
class OutgoingUpdate:
    """A trained update that the aggregator has not settled yet."""

    round_number: int
    samples: int
    payload: bytes


class SiteState:
    """Opens or creates the state at `path`. Raises StorageError when it cannot be read or written."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Open it; `durable` as in `Database`."""
        self._database = Database(path, _SCHEMA, durable=durable)

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def load(self) -> StoredSite | None:
        """Return where the site stands, or None when it has not begun a federation."""
        row = self._database.row(
            "SELECT plan, version, finished, trained_round, shared_head, private_head, residual, codec_memory"
            " FROM site"
        )
        if row is None:
            return None
        plan, version, finished, *rest = row
        return StoredSite(msgspec.msgpack.decode(plan, type=Plan), version, bool(finished), *rest)

    def begin(self, plan: Plan, shared_head: bytes, private_head: bytes) -> None:
        """Record the plan and version 0 of both heads."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO site VALUES (1, ?, 0, 0, 0, ?, ?, NULL, x'')",
                (msgspec.msgpack.encode(plan), shared_head, private_head),
            )

    def install(self, version: int, shared_head: bytes, finished: bool) -> None:
        """Make a received global head the site's own."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE site SET version = ?, shared_head = ?, finished = ?", (version, shared_head, finished)
            )

    def store_update(
        self, update: OutgoingUpdate, private_head: bytes, residual: bytes, codec_memory: bytes
    ) -> None:
        """Record a trained round: private head, residual, memory and the update to send, all or nothing."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO outbox SELECT 1, ?, ?, ?, residual, codec_memory FROM site",
                (update.round_number, update.samples, update.payload),
            )
            database.execute(
                "UPDATE site SET trained_round = ?, private_head = ?, residual = ?, codec_memory = ?",
                (update.round_number, private_head, residual, codec_memory),
            )

    def outgoing_update(self) -> OutgoingUpdate | None:
        """Return the update that is not settled yet, if any."""
        row = self._database.row("SELECT round_number, samples, payload FROM outbox")
        return None if row is None else OutgoingUpdate(*row)

    def settle(self, round_number: int, accepted: bool) -> None:
        """Take the round's update from the outbox.

        A refused one gives back residual and memory of before: the aggregator never decoded it.
        """
        with self._database.transaction() as database:
            if not accepted:
                database.execute(
                    "UPDATE site SET (residual, codec_memory) ="
                    " (SELECT residual_if_refused, codec_memory_if_refused FROM outbox)"
                    " WHERE EXISTS (SELECT 1 FROM outbox WHERE round_number = ?)",
                    (round_number,),
                )
            database.execute("DELETE FROM outbox WHERE round_number = ?", (round_number,))

    def write_journal(self, version: int, report: dict[str, Any]) -> None:
        """Record what is known about a version at this site (bytes, seconds, accuracies)."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO journal VALUES (?, ?)", (version, msgspec.json.encode(report))
            )

    def journal(self) -> dict[int, dict[str, Any]]:
        """Return the reports by version."""
        rows = self._database.rows("SELECT version, report FROM journal ORDER BY version")
        return {version: msgspec.json.decode(report) for version, report in rows}
