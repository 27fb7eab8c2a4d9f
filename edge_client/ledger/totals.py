"""How much has left and come, by kind: kept beside the ledger, so that nobody has to read all of it.

Counted by quarters of an hour, on which the days of every time zone begin; what is older than two days is
kept by days of UTC.
"""

import time
from datetime import datetime

import msgspec

from fedmedclip.edge_client.ledger.entry import Entry

QUARTER_SECONDS = 900
_QUARTERS_OF_A_DAY = 96
_QUARTERS_KEPT = 2 * _QUARTERS_OF_A_DAY

Key = tuple[int, str, str]
"""Quarter (since 1970), direction and kind."""


class Count(msgspec.Struct):
    """Entries, and the bytes of their payloads."""

    messages: int = 0
    bytes: int = 0

    def add(self, messages: int, size: int) -> None:
        """Count so many more."""
        self.messages += messages
        self.bytes += size


class KindTotals(msgspec.Struct):
    """Of one kind in one direction: today, a day of this machine's clock, and in all."""

    direction: str
    kind: str
    today: Count = msgspec.field(default_factory=Count)
    in_all: Count = msgspec.field(default_factory=Count)


class Totals(msgspec.Struct):
    """What has left and come, today and in all."""

    sent_today: Count
    sent: Count
    received_today: Count
    received: Count
    kinds: list[KindTotals]


class RunningTotals:
    """Counts entries; `take_changes` hands out what is to be stored."""

    def __init__(self, stored: dict[Key, tuple[int, int]]) -> None:
        self._counts = {key: Count(*found) for key, found in stored.items()}
        self._changed: set[Key] = set()
        self._sent = sum(count.bytes for key, count in self._counts.items() if key[1] == "out")

    def add(self, entry: Entry) -> None:
        """Count an entry."""
        key = (int(entry.at // QUARTER_SECONDS), entry.direction, entry.kind)
        self._counts.setdefault(key, Count()).add(1, entry.bytes)
        self._changed.add(key)
        if entry.direction == "out":
            self._sent += entry.bytes

    def sent_bytes(self, since: float | None) -> int:
        """Return the bytes that left, in all or since a moment, from the beginning of its quarter on."""
        if since is None:
            return self._sent
        first = int(since // QUARTER_SECONDS)
        return sum(
            count.bytes
            for (quarter, direction, _), count in self._counts.items()
            if direction == "out" and quarter >= first
        )

    def totals(self, now: float) -> Totals:
        """Return all counts as of `now`."""
        first = int(beginning_of_day(now) // QUARTER_SECONDS)
        kinds: dict[tuple[str, str], KindTotals] = {}
        sums = {"out": (Count(), Count()), "in": (Count(), Count()), "here": (Count(), Count())}
        for (quarter, direction, kind), count in self._counts.items():
            of_kind = kinds.setdefault((direction, kind), KindTotals(direction, kind))
            today, in_all = sums[direction]
            for target in (of_kind.in_all, in_all):
                target.add(count.messages, count.bytes)
            if quarter >= first:
                for target in (of_kind.today, today):
                    target.add(count.messages, count.bytes)
        listed = [kinds[key] for key in sorted(kinds, key=lambda key: (key[0] != "out", *key))]
        return Totals(*sums["out"], *sums["in"], listed)

    def take_changes(self) -> dict[Key, tuple[int, int]]:
        """Return the counts that are new since the last call."""
        changed, self._changed = self._changed, set()
        return {key: (self._counts[key].messages, self._counts[key].bytes) for key in changed}

    def take_old(self, now: float) -> list[Key]:
        """Count what is older than two days by days; return the keys that are no more."""
        last = int(now // QUARTER_SECONDS) - _QUARTERS_KEPT
        old = [key for key in self._counts if key[0] < last and key[0] % _QUARTERS_OF_A_DAY]
        for quarter, direction, kind in old:
            count = self._counts.pop((quarter, direction, kind))
            day = (quarter - quarter % _QUARTERS_OF_A_DAY, direction, kind)
            self._counts.setdefault(day, Count()).add(count.messages, count.bytes)
            self._changed.add(day)
        self._changed -= set(old)
        return old


def beginning_of_day(now: float) -> float:
    """Return when the day of this machine's clock began in which `now` is, in seconds since 1970."""
    today = datetime.fromtimestamp(now).date()
    return time.mktime((today.year, today.month, today.day, 0, 0, 0, 0, 0, -1))
