"""A site's durable state: one SQLite file that a kill at any moment leaves consistent.

The private head, the residual, the codec's memory and the update of a round are stored in one transaction
before the update is sent; a receipt of the aggregator settles it. One that is accepted stays until its
round's version is here: an aggregator that lost it with its state is sent it again.
"""

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.edge_client.ledger.end import END_SCHEMA, LedgerEnd
from fedmedclip.edge_client.ledger.sources import (
    SOURCES_SCHEMA,
    UpdateSource,
    UpdateSources,
    record_source,
)
from fedmedclip.edge_client.site.consent import CONSENT_SCHEMA, Consents
from fedmedclip.edge_client.site.events import EVENTS_SCHEMA, Events
from fedmedclip.edge_client.site.limits import CONTRIBUTIONS_SCHEMA, Contributions
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.releases import RELEASES_SCHEMA, Release, Releases, record_release
from fedmedclip.edge_client.site.shared_metrics import METRICS_SCHEMA, ActiveVersions, SharedMetrics
from fedmedclip.protocol.database import Database, checksum
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.messages import Plan, PrivacySpent, plan_of_version_1

log = logging.getLogger("fedmedclip.site")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS site (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB NOT NULL, version INTEGER NOT NULL, finished INTEGER,
    trained_round INTEGER NOT NULL, shared_head BLOB NOT NULL, private_head BLOB NOT NULL, residual BLOB,
    codec_memory BLOB NOT NULL, shared_checksum BLOB, own_checksum BLOB,
    sealed_plan BLOB, carrier_topic TEXT, carrier BLOB, attempts INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY CHECK (id = 1), round_number INTEGER NOT NULL, samples INTEGER NOT NULL,
    payload BLOB NOT NULL, private_head_if_refused BLOB, residual_if_refused BLOB,
    codec_memory_if_refused BLOB, accepted INTEGER DEFAULT 0, open INTEGER DEFAULT 1,
    attempt INTEGER NOT NULL DEFAULT 0, privacy BLOB);
CREATE TABLE IF NOT EXISTS sessions (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS unmasked (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan_identity BLOB NOT NULL, round_number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS journal (version INTEGER PRIMARY KEY, report BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ended_runs (
    number INTEGER PRIMARY KEY, plan BLOB NOT NULL, version INTEGER NOT NULL, shared_head BLOB,
    private_head BLOB, journal BLOB);
CREATE TABLE IF NOT EXISTS run_classes (run INTEGER PRIMARY KEY, names BLOB NOT NULL);
""" + ";".join(
    (
        RELEASES_SCHEMA,
        CONSENT_SCHEMA,
        CONTRIBUTIONS_SCHEMA,
        END_SCHEMA,
        SOURCES_SCHEMA,
        METRICS_SCHEMA,
        EVENTS_SCHEMA,
    )
)
_VALUES = "plan, version, trained_round, shared_head, private_head, residual, codec_memory"


def _from_version_1(database: sqlite3.Connection) -> None:
    """Checksums, and room for the aggregator's signed messages."""
    for column in ("shared_checksum BLOB", "own_checksum BLOB", "sealed_plan BLOB", "carrier_topic TEXT",
                   "carrier BLOB"):  # fmt: skip
        database.execute(f"ALTER TABLE site ADD COLUMN {column}")
    for column in ("private_head_if_refused BLOB", "accepted INTEGER DEFAULT 0", "open INTEGER DEFAULT 1"):
        database.execute(f"ALTER TABLE outbox ADD COLUMN {column}")
    for plan, shared, private, residual, memory in database.execute(
        "SELECT plan, shared_head, private_head, residual, codec_memory FROM site"
    ).fetchall():
        database.execute(
            "UPDATE site SET plan = ?, shared_checksum = ?, own_checksum = ?",
            (
                msgspec.msgpack.encode(plan_of_version_1(plan)),
                checksum(shared),
                checksum(private, residual, memory),
            ),
        )


def _from_version_2(database: sqlite3.Connection) -> None:
    """How often the newest round was refused and trained again. The table of sessions is new."""
    database.execute("ALTER TABLE site ADD COLUMN attempts INTEGER DEFAULT 0")
    database.execute("ALTER TABLE outbox ADD COLUMN attempt INTEGER DEFAULT 0")


def _from_version_3(database: sqlite3.Connection) -> None:
    """What an update cost of the site's privacy. The tables of the releases are new."""
    database.execute("ALTER TABLE outbox ADD COLUMN privacy BLOB")


@dataclass(frozen=True)
class StoredSite:
    """Where the site stands in a run. Heads and residual are the bytes of their specifications' `to_bytes`.

    `version` is -1 as long as the run's first head has to be asked for. `codec_memory` is what the update's
    encoder keeps between rounds.
    """

    plan: Plan
    version: int
    trained_round: int
    shared_head: bytes
    private_head: bytes
    residual: bytes | None
    codec_memory: bytes

    @property
    def finished(self) -> bool:
        """Whether the run is over and its last head is here."""
        return self.version >= self.plan.rounds


@dataclass(frozen=True)
class Sealed:
    """A message of the aggregator as it came, with its signature."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class OutgoingUpdate:
    """A trained update that the aggregator has not settled yet; `attempt` and `privacy` as in an Update."""

    round_number: int
    samples: int
    payload: bytes
    attempt: int = 0
    privacy: PrivacySpent | None = None


class SiteState:
    """Opens or creates the state at `path`. Raises StorageError when it cannot be read or written."""

    def __init__(self, path: Path, *, durable: bool = True, replay_rounds: int = 0) -> None:
        """Open it; `durable` as in `Database`. Of so many updates it keeps what they were made of."""
        self.replay_rounds = replay_rounds
        self._database = Database(
            path,
            _SCHEMA,
            durable=durable,
            migrations=[_from_version_1, _from_version_2, _from_version_3],
        )
        self.releases = Releases(self._database)
        """What was released under privacy, in all runs."""
        self.events = Events(self._database)
        """What happened here, for the operator."""
        self.ledger_end = LedgerEnd(self._database)
        """What is known here of the ledger."""
        self.update_sources = UpdateSources(self._database)
        """What the newest updates were made of."""
        self.consents = Consents(self._database)
        """What this site's operator has decided."""
        self.contributions = Contributions(self._database)
        """The rounds of which an update was sent."""

    def shared_metrics(
        self,
        policy: PolicySettings,
        software: str,
        *,
        own_privacy: bool = False,
        active: ActiveVersions | None = None,
    ) -> SharedMetrics:
        """Return what is shared of each version, as it is stored here."""
        return SharedMetrics(self._database, policy, software, own_privacy=own_privacy, active=active)

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def changes(self) -> int:
        """Return a number that is another one once anybody else has written here: SQLite's `data_version`."""
        (found,) = self._database.row("PRAGMA data_version")
        return int(found)

    def session(self) -> int:
        """Return the number of the last session that was begun here; 0 before the first."""
        row = self._database.row("SELECT number FROM sessions")
        return 0 if row is None else int(row[0])

    def begin_session(self, number: int) -> None:
        """Record the number of a session, before anything is said in it."""
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO sessions VALUES (1, ?)", (number,))

    def load(self) -> StoredSite | None:
        """Return where the site stands, or None when it has not begun a run.

        A shared head that is damaged is dropped: the aggregator has it. What is damaged of the site's own is
        a StorageError.
        """
        row = self._database.row(f"SELECT {_VALUES}, shared_checksum, own_checksum FROM site")
        if row is None:
            return None
        plan, version, trained, shared, private, residual, memory, shared_checksum, own_checksum = row
        if checksum(private, residual, memory) != own_checksum:
            raise self._database.damaged(
                "the site's private head", "restore a backup, or move the file away to begin a new one"
            )
        if checksum(shared) != shared_checksum:
            log.warning("%s: the shared head is damaged; asking the aggregator for it", self._database.path)
            version, shared = -1, bytes(len(shared))
        decoded = self._database.decoded(plan, Plan, "the plan")
        return StoredSite(decoded, version, trained, shared, private, residual, memory)

    def begin(
        self, plan: Plan, shared_head: bytes, private_head: bytes, version: int = 0, sealed_plan: bytes = b""
    ) -> None:
        """Record the beginning of a run; the one before is put away with its heads and journal."""
        journal = msgspec.json.encode(self.journal())
        with self._database.transaction() as database:
            if (before := self._plan()) is not None:
                database.execute(
                    "INSERT OR REPLACE INTO ended_runs"
                    " SELECT ?, plan, version, shared_head, private_head, ? FROM site",
                    (before.number, journal),
                )
            for table in ("site", "outbox", "journal"):
                database.execute(f"DELETE FROM {table}")
            database.execute(
                f"INSERT INTO site (id, {_VALUES}, finished, shared_checksum, own_checksum, sealed_plan)"
                " VALUES (1, ?, ?, 0, ?, ?, NULL, x'', 0, ?, ?, ?)",
                (
                    msgspec.msgpack.encode(plan),
                    version,
                    shared_head,
                    private_head,
                    checksum(shared_head),
                    checksum(private_head, None, b""),
                    sealed_plan,
                ),
            )

    def _plan(self) -> Plan | None:
        row = self._database.row("SELECT plan FROM site")
        return None if row is None else self._database.decoded(row[0], Plan, "the plan")

    def revise(self, plan: Plan, sealed_plan: bytes) -> None:
        """Replace the plan by a later revision of it."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE site SET plan = ?, sealed_plan = ?", (msgspec.msgpack.encode(plan), sealed_plan)
            )

    def keep_sealed(self, sealed_plan: bytes) -> None:
        """Replace the signed plan by one that says the same in the present version of the protocol."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE site SET sealed_plan = ? WHERE sealed_plan != ?", (sealed_plan, sealed_plan)
            )

    def name_classes(self, run: int, names: Sequence[str]) -> None:
        """Record the classes of a run's bundle, in their order."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO run_classes VALUES (?, ?)", (run, msgspec.json.encode(names))
            )

    def class_names(self, run: int) -> tuple[str, ...]:
        """Return the classes of a run's bundle; empty where they are not known."""
        row = self._database.row("SELECT names FROM run_classes WHERE run = ?", (run,))
        if row is None:
            return ()
        return self._database.decoded(row[0], tuple[str, ...], "the classes of a run", msgspec.json)

    def ended_runs(self) -> list[tuple[Plan, int]]:
        """Return plan and last version of each run before this one, oldest first."""
        rows = self._database.rows("SELECT plan, version FROM ended_runs ORDER BY number")
        return [(self._database.decoded(plan, Plan, "the plan of a run"), version) for plan, version in rows]

    def coordinator_key(self) -> bytes | None:
        """Return the key that signed the plan of the run that the site is in; None before the first."""
        plan = self._plan()
        return None if plan is None else plan.aggregator_key

    def plan_identities(self) -> list[bytes]:
        """Return the identities of the plans of all runs here, oldest first."""
        plan = self._plan()
        return [ended.identity for ended, _ in self.ended_runs()] + ([] if plan is None else [plan.identity])

    def install(self, version: int, shared_head: bytes, carrier: Sealed | None = None) -> None:
        """Make a received global head the site's own, with the signed message that announced it."""
        sealed = (None, None) if carrier is None else (carrier.topic, carrier.payload)
        with self._database.transaction() as database:
            database.execute(
                "UPDATE site SET version = ?, shared_head = ?, shared_checksum = ?, carrier_topic = ?,"
                " carrier = ?",
                (version, shared_head, checksum(shared_head), *sealed),
            )
            database.execute("DELETE FROM outbox WHERE accepted AND round_number <= ?", (version,))

    def evidence(self) -> tuple[bytes, Sealed, bytes] | None:
        """Return the signed plan, the signed carrier of the newest version and its head; None without a plan.

        Where the carrier is not here, it and the head are empty.
        """
        row = self._database.row("SELECT sealed_plan, carrier_topic, carrier, shared_head FROM site")
        if row is None or not row[0]:
            return None
        return (row[0], Sealed(row[1], row[2]), row[3]) if row[2] else (row[0], Sealed("", b""), b"")

    def store_update(
        self,
        update: OutgoingUpdate,
        private_head: bytes,
        residual: bytes,
        codec_memory: bytes,
        release: Release | None = None,
        source: UpdateSource | None = None,
    ) -> None:
        """Record a trained round: private head, residual, memory and the update to send, all or nothing.

        `release` is what the update costs, where it is private, `source` what it is made of, where that is
        kept.
        """
        with self._database.transaction() as database:
            if source is not None and self.replay_rounds:
                (attempt,) = database.execute("SELECT attempts FROM site").fetchone()
                record_source(database, source, attempt, self.replay_rounds)
            if release is not None:
                record_release(database, release)
            database.execute(
                "INSERT OR REPLACE INTO outbox (id, round_number, samples, payload, private_head_if_refused,"
                " residual_if_refused, codec_memory_if_refused, attempt, privacy)"
                " SELECT 1, ?, ?, ?, private_head, residual, codec_memory, attempts, ? FROM site",
                (
                    update.round_number,
                    update.samples,
                    update.payload,
                    None if release is None else msgspec.msgpack.encode(release.report),
                ),
            )
            database.execute(
                "UPDATE site SET trained_round = ?, private_head = ?, residual = ?, codec_memory = ?,"
                " own_checksum = ?, attempts = 0",
                (
                    update.round_number,
                    private_head,
                    residual,
                    codec_memory,
                    checksum(private_head, residual, codec_memory),
                ),
            )

    def store_private(self, round_number: int, private_head: bytes) -> None:
        """Record a trained round of which nothing is sent: what is owed of earlier rounds stays owed."""
        with self._database.transaction() as database:
            residual, memory = database.execute("SELECT residual, codec_memory FROM site").fetchone()
            database.execute(
                "UPDATE site SET trained_round = ?, private_head = ?, own_checksum = ?",
                (round_number, private_head, checksum(private_head, residual, memory)),
            )

    def outgoing_update(self) -> OutgoingUpdate | None:
        """Return the update that is not settled yet, if any."""
        row = self._database.row(
            "SELECT round_number, samples, payload, attempt, privacy FROM outbox WHERE open"
        )
        if row is None:
            return None
        round_number, samples, payload, attempt, spent = row
        decoded = spent and self._database.decoded(spent, PrivacySpent, "what an update costs")
        return OutgoingUpdate(round_number, samples, payload, attempt, decoded)

    def has_update(self, round_number: int) -> bool:
        """Whether the update of a round was made, and was not refused."""
        row = self._database.row("SELECT 1 FROM outbox WHERE round_number = ?", (round_number,))
        return row is not None

    def settle(self, round_number: int, accepted: bool, *, again: bool = False) -> None:
        """Take note of what became of the round's update.

        One that does not count gives back residual and memory of before: the aggregator never decoded it.
        With `again` the private head is given back too, for the round is to be trained once more. One that
        was accepted once may well be in the head, whatever an aggregator that lost state says of it later.
        """
        row = self._database.row(
            "SELECT private_head_if_refused, residual_if_refused, codec_memory_if_refused, accepted, attempt"
            " FROM outbox WHERE round_number = ?",
            (round_number,),
        )
        if row is None:
            return
        private, residual, memory, was_accepted, attempt = row
        with self._database.transaction() as database:
            if accepted or (was_accepted and not again):
                database.execute(
                    "UPDATE outbox SET accepted = 1, open = 0 WHERE round_number = ?", (round_number,)
                )
                return
            (kept,) = database.execute("SELECT private_head FROM site").fetchone()
            private = private if again and private is not None else kept
            database.execute(
                "UPDATE site SET private_head = ?, residual = ?, codec_memory = ?, own_checksum = ?",
                (private, residual, memory, checksum(private, residual, memory)),
            )
            if again:
                database.execute(
                    "UPDATE site SET trained_round = ?, attempts = ?", (round_number - 1, attempt + 1)
                )
            database.execute("DELETE FROM outbox WHERE round_number = ?", (round_number,))

    def reopen(self, round_number: int) -> None:
        """Let an update that was accepted be sent once more."""
        with self._database.transaction() as database:
            database.execute("UPDATE outbox SET open = 1 WHERE round_number = ?", (round_number,))

    def keep_residual(self, round_number: int, residual: bytes) -> None:
        """Replace what is owed after the update of a round, which is known only once it is masked."""
        with self._database.transaction() as database:
            private, memory = database.execute("SELECT private_head, codec_memory FROM site").fetchone()
            database.execute(
                "UPDATE site SET residual = ?, own_checksum = ? WHERE trained_round = ?",
                (residual, checksum(private, residual, memory), round_number),
            )

    def unmasked_round(self) -> int:
        """Return the last round of this run in which this site has shown shares of its peers; 0: none."""
        row = self._database.row("SELECT plan_identity, round_number FROM unmasked")
        plan = self._plan()
        return 0 if row is None or plan is None or row[0] != plan.identity else int(row[1])

    def note_unmasked(self, round_number: int) -> None:
        """Record that shares of peers are shown in a round, before they are."""
        plan = self._plan()
        assert plan is not None
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO unmasked VALUES (1, ?, ?)", (plan.identity, round_number)
            )

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the state, while it is in use."""
        self._database.copy_to(path)

    def write_journal(self, version: int, report: dict[str, Any]) -> None:
        """Record what is known about a version at this site (bytes, seconds, accuracies)."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO journal VALUES (?, ?)", (version, msgspec.json.encode(report))
            )

    def has_report(self, version: int) -> bool:
        """Whether the journal has a report of this version."""
        return self._database.row("SELECT 1 FROM journal WHERE version = ?", (version,)) is not None

    def journal(self) -> dict[int, dict[str, Any]]:
        """Return the reports by version."""
        rows = self._database.rows("SELECT version, report FROM journal ORDER BY version")
        found: dict[int, dict[str, Any]] = {}
        for version, report in rows:
            try:
                found[version] = self._database.decoded(report, dict[str, Any], "a report", msgspec.json)
            except StorageError as error:
                # Nothing but what is shown depends on it.
                log.warning("the report of version %d is left out: %s", version, error)
        return found
