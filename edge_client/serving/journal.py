"""What a service must not forget when it is killed: what came in, what it answered, what is to be delivered.

All of it is on disk when a transaction of the database ends. The keys of arrivals are kept as their SHA-256:
they tell whether something comes again, and nothing else.
"""

import hashlib
import os
from pathlib import Path
from typing import Literal

import msgspec

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import Arrival, Door, Suffix
from fedmedclip.protocol.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS arrivals (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key BLOB NOT NULL UNIQUE,
    arrival BLOB NOT NULL,
    received_at REAL NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    answer BLOB
);
CREATE INDEX IF NOT EXISTS arrivals_that_wait ON arrivals (number) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS arrivals_by_state ON arrivals (state);
CREATE INDEX IF NOT EXISTS arrivals_by_age ON arrivals (received_at);
CREATE TABLE IF NOT EXISTS deliveries (
    id TEXT NOT NULL,
    outlet TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due_at REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (id, outlet)
);
CREATE INDEX IF NOT EXISTS deliveries_that_wait ON deliveries (outlet, due_at) WHERE state = 'waiting'
"""

State = Literal["waiting", "answered", "aside"]


class Waiting(msgspec.Struct, frozen=True):
    """An arrival without an answer; `attempts` is how often work on it was begun."""

    id: str
    arrival: Arrival
    received_at: float
    attempts: int


class Delivery(msgspec.Struct, frozen=True):
    """One answer on its way by one outlet; `attempts` counts those that failed."""

    id: str
    outlet: str
    attempts: int
    due_at: float


class Journal:
    """The database at `path`, to be used by one thread; changes stand inside `transaction()`."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)
        # What is deleted is overwritten: an answer's name may be a UID.
        self._database.rows("PRAGMA secure_delete = ON")
        self.transaction = self._database.transaction
        self.close = self._database.close

    def add(self, id: str, arrival: Arrival, received_at: float) -> str | None:
        """Store an arrival; return the id of the one that its key already stands for, which then stays."""
        key = hashlib.sha256(arrival.key.encode("utf-8", "surrogateescape")).digest()
        if found := self._database.row("SELECT id FROM arrivals WHERE key = ?", (key,)):
            known: str = found[0]
            return known
        place = os.fsencode(arrival.content) if not arrival.copy else None
        stored = _Stored(arrival.door, arrival.name, place, arrival.context, arrival.explain, arrival.suffix)
        self._database.rows(
            "INSERT INTO arrivals (id, key, arrival, received_at, state, attempts) "
            "VALUES (?, ?, ?, ?, 'waiting', 0)",
            (id, key, _packed(stored), received_at),
        )
        return None

    def waiting(self) -> list[Waiting]:
        """Return all arrivals without an answer, in the order in which they came."""
        rows = self._database.rows(
            "SELECT id, arrival, received_at, attempts FROM arrivals WHERE state = 'waiting' ORDER BY number"
        )
        return [
            Waiting(id, self._arrival(id, packed), received_at, attempts)
            for id, packed, received_at, attempts in rows
        ]

    def count_attempts(self, id: str, attempts: int) -> None:
        """Store how many attempts at an arrival were begun, less those that ended for no fault of its own."""
        self._database.rows("UPDATE arrivals SET attempts = ? WHERE id = ?", (attempts, id))

    def settle(self, id: str, state: State, answer: Answer, outlets: list[str], now: float) -> bool:
        """Store the answer to an arrival and what is to be delivered; False where it already has one."""
        found = self._database.row("SELECT 1 FROM arrivals WHERE id = ? AND state = 'waiting'", (id,))
        if found is None:
            return False
        self._database.rows(
            "UPDATE arrivals SET state = ?, answer = ? WHERE id = ?", (state, _packed(answer), id)
        )
        for outlet in outlets:
            self._database.rows(
                "INSERT INTO deliveries VALUES (?, ?, 0, ?, 'waiting', '')", (id, outlet, now)
            )
        return True

    def state_of(self, id: str) -> State | None:
        """Return what has become of an arrival; None for an id that is not known, or no longer."""
        found = self._database.row("SELECT state FROM arrivals WHERE id = ?", (id,))
        state: State | None = found[0] if found else None
        return state

    def answer(self, id: str) -> Answer | None:
        """Return the answer to an arrival, None while there is none."""
        found = self._database.row("SELECT answer FROM arrivals WHERE id = ?", (id,))
        if not found or found[0] is None:
            return None
        return self._database.decoded(found[0], Answer, f"the answer {id}")

    def arrival(self, id: str) -> Arrival | None:
        """Return an arrival without its content, None for an id that is not known, or no longer."""
        found = self._database.row("SELECT arrival FROM arrivals WHERE id = ?", (id,))
        return self._arrival(id, found[0]) if found else None

    def next_delivery(self, outlet: str) -> Delivery | None:
        """Return the delivery by an outlet that is due first."""
        found = self._database.row(
            "SELECT id, attempts, due_at FROM deliveries WHERE outlet = ? AND state = 'waiting' "
            "ORDER BY due_at LIMIT 1",
            (outlet,),
        )
        return Delivery(found[0], outlet, found[1], found[2]) if found else None

    def delivered(self, id: str, outlet: str) -> None:
        """Forget a delivery that is done."""
        self._database.rows("DELETE FROM deliveries WHERE id = ? AND outlet = ?", (id, outlet))

    def postpone(self, id: str, outlet: str, due_at: float, reason: str) -> None:
        """Note that a delivery failed, and when it is tried again."""
        self._database.rows(
            "UPDATE deliveries SET attempts = attempts + 1, due_at = ?, reason = ? "
            "WHERE id = ? AND outlet = ?",
            (due_at, reason, id, outlet),
        )

    def give_up(self, id: str, outlet: str, reason: str) -> None:
        """Put a delivery aside with its reason."""
        self._database.rows(
            "INSERT INTO deliveries VALUES (?, ?, 0, 0, 'aside', ?) "
            "ON CONFLICT (id, outlet) DO UPDATE SET state = 'aside', reason = excluded.reason",
            (id, outlet, reason),
        )

    def payload_names(self) -> set[str]:
        """Return the names of all files that wait to be delivered."""
        rows = self._database.rows("SELECT id, outlet FROM deliveries WHERE state = 'waiting'")
        return {f"{id}.{outlet}" for id, outlet in rows}

    def count(self, state: State) -> int:
        """Return how many arrivals are in a state."""
        found: int = self._database.row("SELECT count(*) FROM arrivals WHERE state = ?", (state,))[0]
        return found

    def aside(self) -> list[Answer]:
        """Return the answers to all that was put aside, which say why."""
        rows = self._database.rows(
            "SELECT id, answer FROM arrivals WHERE state = 'aside' AND answer IS NOT NULL ORDER BY number"
        )
        return [self._database.decoded(packed, Answer, f"the answer {id}") for id, packed in rows]

    def deliveries_aside(self) -> list[tuple[str, str, str]]:
        """Return id, outlet and reason of all deliveries that were put aside."""
        rows = self._database.rows(
            "SELECT id, outlet, reason FROM deliveries WHERE state = 'aside' ORDER BY id, outlet"
        )
        return [(id, outlet, reason) for id, outlet, reason in rows]

    def counts(self) -> dict[str, int]:
        """Return how many deliveries wait, by outlet."""
        rows = self._database.rows(
            "SELECT outlet, count(*) FROM deliveries WHERE state = 'waiting' GROUP BY outlet"
        )
        return dict(rows)

    def forget(self, before: float, most: int = 1000) -> list[str]:
        """Delete up to so many arrivals that came before a time and owe nothing; return their ids."""
        rows = self._database.rows(
            "SELECT id FROM arrivals WHERE received_at < ? AND state != 'waiting' AND NOT EXISTS "
            "(SELECT 1 FROM deliveries WHERE deliveries.id = arrivals.id AND deliveries.state = 'waiting') "
            "LIMIT ?",
            (before, most),
        )
        for (id,) in rows:
            self._database.rows("DELETE FROM arrivals WHERE id = ?", (id,))
            self._database.rows("DELETE FROM deliveries WHERE id = ?", (id,))
        return [id for (id,) in rows]

    def empty_log(self) -> None:
        """Empty the write-ahead log, in which what was deleted still stands."""
        self._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    def _arrival(self, id: str, packed: bytes) -> Arrival:
        stored = self._database.decoded(packed, _Stored, f"the arrival {id}")
        return Arrival(
            door=stored.door,
            key="",
            name=stored.name,
            content=b"" if stored.place is None else Path(os.fsdecode(stored.place)),
            copy=stored.place is None,
            suffix=stored.suffix,
            context=stored.context,
            explain=stored.explain,
        )


class _Stored(msgspec.Struct, frozen=True):
    door: Door
    name: str
    place: bytes | None
    context: dict[str, str]
    explain: bool
    suffix: Suffix = ""


def _packed(value: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(value)
