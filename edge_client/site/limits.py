"""How much may leave this site: bytes on a day and in all, and rounds of all runs.

What is bounded are updates and whatever else is as large. The short messages of the protocol (that this site
is there, asks for a head, abstains and why) go on, so that both sides hear.
"""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.protocol.database import Database

CONTRIBUTIONS_SCHEMA = """
CREATE TABLE IF NOT EXISTS contributions (
    run INTEGER NOT NULL, round_number INTEGER NOT NULL, PRIMARY KEY (run, round_number));
"""

# Of the envelope, and of each block with its own.
_BYTES_AROUND = 256
_BLOCK_BYTES = 1 << 16


class Sent(Protocol):
    """What knows how much has left this site."""

    def sent_bytes(self, since: float | None = None) -> int:
        """Return the bytes of all payloads that were published, or of those since a time (s since 1970)."""


class Contributions:
    """The rounds of which this site has sent an update, in all runs, in the database of its state."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: tuple[int, int] | None = None

    def note(self, run: int, round_number: int) -> None:
        """Record that an update of a round is sent, before it is."""
        if self._noted == (run, round_number):
            return
        with self._database.transaction() as database:
            database.execute("INSERT OR IGNORE INTO contributions VALUES (?, ?)", (run, round_number))
        self._noted = run, round_number

    def has(self, run: int, round_number: int) -> bool:
        """Whether an update of a round was sent, or was about to be."""
        query = "SELECT 1 FROM contributions WHERE run = ? AND round_number = ?"
        return self._database.row(query, (run, round_number)) is not None

    def count(self) -> int:
        """Return of how many rounds an update was sent."""
        (found,) = self._database.row("SELECT count(*) FROM contributions")
        return int(found)


class Limits:
    """The bounds of a policy. `sent` counts bytes; `wall_clock` gives the seconds since 1970."""

    def __init__(
        self,
        policy: PolicySettings,
        contributions: Contributions,
        sent: Sent | None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._policy = policy
        self._contributions = contributions
        self._sent = sent
        self._wall_clock = wall_clock
        self._expected: tuple[float, int] | None = None

    def expect(self, size: int) -> None:
        """Take note of how many bytes the newest update has: the next has about as many."""
        self._expected = self._midnight(), size

    def reason_not_to_train(self, run: int, round_number: int) -> str:
        """Return why an update of a round could not be sent; empty where it could.

        One that never fits is tried anew each day: the next may be smaller.
        """
        known = self._expected is not None and self._expected[0] == self._midnight()
        expected = self._expected[1] if known and self._expected is not None else 0
        return self._rounds_reached(run, round_number) or self.reason_to_keep(expected)

    def reason_not_to_send(self, run: int, round_number: int, size: int) -> str:
        """Return why an update of `size` bytes may not leave now; empty where it may."""
        return self._rounds_reached(run, round_number) or self.reason_to_keep(size)

    def reason_to_keep(self, size: int) -> str:
        """Return why so many bytes may not leave now; empty where they may."""
        day, in_all = self._policy.bytes_per_day, self._policy.bytes_in_all
        if self._sent is None or (day is None and in_all is None):
            return ""
        more = size + _BYTES_AROUND * (1 + size // _BLOCK_BYTES)
        if in_all is not None and (sent := self._sent.sent_bytes()) + more > in_all:
            return _reached("bytes_in_all", in_all, sent, more, "have left")
        if day is not None and (sent := self._sent.sent_bytes(self._midnight())) + more > day:
            return _reached("bytes_per_day", day, sent, more, "have left today")
        return ""

    def _rounds_reached(self, run: int, round_number: int) -> str:
        bound = self._policy.rounds_in_all
        if bound is None or self._contributions.has(run, round_number):
            return ""
        if (count := self._contributions.count()) < bound:
            return ""
        return f"rounds_in_all = {bound} of this hospital's policy is reached: it has contributed to {count}"

    def _midnight(self) -> float:
        """Return when this machine's local day began: also a day of 23 or 25 hours."""
        today = datetime.fromtimestamp(self._wall_clock())
        return datetime(today.year, today.month, today.day).timestamp()


def _reached(name: str, bound: int, sent: int, more: int, have_left: str) -> str:
    return (
        f"{name} = {bound} of this hospital's policy is reached: {sent} bytes {have_left}, and what is to be "
        f"sent has about {more}"
    )
