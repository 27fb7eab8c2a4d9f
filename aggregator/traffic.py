"""How many payload bytes went to and came from the broker in each round, also over restarts."""

from dataclasses import dataclass

import msgspec

from fedmedclip.protocol.database import Database

TRAFFIC_SCHEMA = """
CREATE TABLE IF NOT EXISTS traffic (
    run INTEGER, round_number INTEGER, sent INTEGER NOT NULL, received INTEGER NOT NULL,
    PRIMARY KEY (run, round_number));
"""
# A process that is killed forgets at most what it counted since.
_STORE_EVERY_SECONDS = 10.0


class RoundTraffic(msgspec.Struct, frozen=True):
    """MQTT payload bytes of the aggregator while a round was open; those after the last are of the next."""

    round_number: int
    sent_bytes: int
    received_bytes: int


class Traffic:
    """The bytes by run and round, in an aggregator's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, run: int, round_number: int, sent: int, received: int) -> None:
        """Count bytes to a round."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO traffic VALUES (?, ?, ?, ?) ON CONFLICT (run, round_number)"
                " DO UPDATE SET sent = sent + excluded.sent, received = received + excluded.received",
                (run, round_number, sent, received),
            )

    def rounds(self, run: int) -> list[RoundTraffic]:
        """Return the bytes of each round of a run, the first round first."""
        query = "SELECT round_number, sent, received FROM traffic WHERE run = ? ORDER BY round_number"
        return [RoundTraffic(*row) for row in self._database.rows(query, (run,))]

    def totals(self, run: int | None = None) -> tuple[int, int]:
        """Return the bytes sent and received in a run, or in all."""
        where = "" if run is None else " WHERE run = ?"
        query = f"SELECT coalesce(sum(sent), 0), coalesce(sum(received), 0) FROM traffic{where}"
        row = self._database.row(query, () if run is None else (run,))
        return int(row[0]), int(row[1])


@dataclass
class TrafficCount:
    """Counts the bytes of one process to the round that is open; `store` now and again, and at its end.

    Times are readings of a monotonic clock in seconds.
    """

    traffic: Traffic
    run: int
    stored_at: float = 0.0
    _sent: int = 0
    _received: int = 0
    _of_round: tuple[int, int] | None = None

    def note(self, sent: int, received: int, round_number: int, now: float) -> None:
        """Take note of what the link has sent and received since the process began."""
        counted = (self.run, round_number)
        if self._of_round is None:
            self._of_round, self.stored_at = counted, now
        if counted != self._of_round or now - self.stored_at >= _STORE_EVERY_SECONDS:
            self.store(sent, received, now)
            self._of_round = counted

    def store(self, sent: int, received: int, now: float) -> None:
        """Write down what was counted since the last time."""
        self.stored_at = now
        if self._of_round is None or (sent, received) == (self._sent, self._received):
            return
        run, round_number = self._of_round
        self.traffic.add(run, round_number, sent - self._sent, received - self._received)
        self._sent, self._received = sent, received
