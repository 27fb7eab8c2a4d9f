"""What members share of each version, in the aggregator's database: the newest that each said of each."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.messages import STEPS_OF_A_SHARE, Metrics

log = logging.getLogger("fedmedclip.aggregator")

METRICS_SCHEMA = """
CREATE TABLE IF NOT EXISTS metrics (
    version INTEGER, site TEXT, weight INTEGER, received_at REAL NOT NULL, message BLOB NOT NULL,
    PRIMARY KEY (version, site));
CREATE TABLE IF NOT EXISTS early_end (
    id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, reason TEXT NOT NULL)
"""
METRICS_TABLES = ("metrics", "early_end")
KEPT_VERSIONS = 200
"""Of so many versions before the newest it is kept what members say, and of the best."""


@dataclass(frozen=True)
class Shared:
    """A member's metrics of a version.

    `weight` is how many images they count for, None where it is not told. `received_at` is in seconds since
    1970.
    """

    metrics: Metrics
    weight: int | None
    received_at: float

    @property
    def score(self) -> float | None:
        """The ensemble's balanced accuracy, by which versions are compared; None where it is not told."""
        found = self.metrics.ensemble
        return None if found is None else found.balanced_accuracy / STEPS_OF_A_SHARE


@dataclass(frozen=True)
class EarlyEnd:
    """At which version a run was ended because nothing got better, and why."""

    version: int
    reason: str


class MetricsTable:
    """The metrics of a run. What was read is kept in memory, so that a look at all of it costs no query."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shared: dict[int, dict[str, Shared]] | None = None
        self.stamp = 0
        """Another number after each change of what is known."""
        self.stamps: dict[int, int] = {}
        """The stamp of the last change of what is known of a version."""
        self.computed: dict[object, tuple[object, Any]] = {}
        """What `version_metrics` has computed, and the state of things from which it did."""

    def put(self, site: str, shared: Shared) -> bool:
        """Store what a member shares; False, and nothing changes, where something later is here."""
        version = shared.metrics.version
        known = self.of_version(version).get(site)
        if known is not None and known.metrics.number >= shared.metrics.number:
            return False
        encoded = msgspec.msgpack.encode(shared.metrics)
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)",
                (version, site, shared.weight, shared.received_at, encoded),
            )
        self._all().setdefault(version, {})[site] = shared
        self._note_change(version)
        return True

    def versions(self) -> list[int]:
        """Return the versions of which something is known, in order."""
        return sorted(self._all())

    def of_version(self, version: int) -> dict[str, Shared]:
        """Return what is known of a version, by site, without those in quarantine."""
        found = self._all().get(version, {})
        if not (quarantined := self.quarantined()):
            return found
        return {site: shared for site, shared in found.items() if site not in quarantined}

    def of_site(self, site: str) -> Iterator[Shared]:
        """Yield what a site shares of each version, in order."""
        everything = self._all()
        for version in sorted(everything):
            if (found := everything[version].get(site)) is not None:
                yield found

    def quarantined(self) -> frozenset[str]:
        """Return the sites whose figures do not count."""
        return frozenset(site for (site,) in self._database.rows("SELECT site FROM quarantine"))

    def forget_site(self, site: str) -> None:
        """Drop all that a site has shared, when it is no member any more."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM metrics WHERE site = ?", (site,))
        for version, found in self._all().items():
            if found.pop(site, None) is not None:
                self._note_change(version)

    def forget_before(self, version: int, kept: int | None) -> None:
        """Drop what is known of the versions before this one, but for one."""
        old = [known for known in self._all() if known < version and known != kept]
        if not old:
            return
        with self._database.transaction() as database:
            database.executemany("DELETE FROM metrics WHERE version = ?", [(known,) for known in old])
        for known in old:
            del self._all()[known]
            self._note_change(known)
            del self.stamps[known]
        self.computed.clear()

    def forget_run(self) -> None:
        """Take note that the run's tables were emptied."""
        self._shared = None
        self.stamp += 1
        self.stamps.clear()
        self.computed.clear()

    def has_head(self, version: int) -> bool:
        """Whether the head of a version may still be had."""
        query = (
            "SELECT 1 FROM versions WHERE version = ? UNION ALL SELECT 1 FROM whole_heads WHERE version = ?"
        )
        return self._database.row(query, (version, version)) is not None

    def heads_state(self) -> object:
        """Return what changes whenever another head can be had, or one cannot be had any more."""
        query = (
            "SELECT (SELECT min(version) FROM versions), (SELECT max(version) FROM versions),"
            " (SELECT count(*) FROM whole_heads)"
        )
        return self._database.row(query)

    def newest_taken_back(self) -> int:
        """Return the newest version that no round made: it was rolled back to, or taken from a site."""
        row = self._database.row("SELECT max(version) FROM versions WHERE payload = x''")
        return 0 if row is None or row[0] is None else int(row[0])

    def early_end(self) -> EarlyEnd | None:
        """Return when the run was last ended because nothing got better; None where it never was."""
        row = self._database.row("SELECT version, reason FROM early_end")
        return None if row is None else EarlyEnd(*row)

    def end_early(self, end: EarlyEnd) -> None:
        """Record that the run is ended because nothing gets better."""
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO early_end VALUES (1, ?, ?)", (end.version, end.reason))

    def _note_change(self, version: int) -> None:
        self.stamp += 1
        self.stamps[version] = self.stamp

    def _all(self) -> dict[int, dict[str, Shared]]:
        if self._shared is None:
            self._shared = {}
            query = "SELECT version, site, weight, received_at, message FROM metrics ORDER BY version, site"
            for version, site, weight, received_at, message in self._database.rows(query):
                try:
                    metrics = self._database.decoded(message, Metrics, f"what {site} says of {version}")
                except StorageError as error:
                    # Nothing that is trained depends on it.
                    log.warning("left out: %s", error)
                    continue
                self._shared.setdefault(version, {})[site] = Shared(metrics, weight, received_at)
        return self._shared
