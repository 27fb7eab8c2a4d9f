"""The aggregator's durable state: one SQLite file.

Every method is one transaction, on disk when it returns. An update is keyed by
(round, site): storing it twice changes nothing, so a message that the broker delivers again counts once.
"""

import hashlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from fedmedclip.aggregator.chronicle import CHRONICLE_SCHEMA, ChronicleTable
from fedmedclip.aggregator.command_log import COMMAND_LOG_SCHEMA, CommandLog
from fedmedclip.aggregator.counted import COUNTED_SCHEMA, Counted
from fedmedclip.aggregator.dropped import DROPPED_SCHEMA, Dropped
from fedmedclip.aggregator.metrics_table import METRICS_SCHEMA, METRICS_TABLES, MetricsTable
from fedmedclip.aggregator.overrides import OVERRIDES_SCHEMA, Overrides
from fedmedclip.aggregator.round_events import MAXIMUM_STALENESS
from fedmedclip.aggregator.traffic import TRAFFIC_SCHEMA, Traffic
from fedmedclip.protocol.database import Database, checksum
from fedmedclip.protocol.messages import Moment, Plan, PrivacySpent, Update, plan_of_version_1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS federation (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB NOT NULL, head BLOB NOT NULL, residual BLOB,
    codec_memory BLOB NOT NULL, checksum BLOB, name TEXT, configured BLOB);
CREATE TABLE IF NOT EXISTS sites (
    name TEXT PRIMARY KEY, public_key BLOB NOT NULL, samples INTEGER NOT NULL,
    last_round INTEGER NOT NULL DEFAULT 0,
    software TEXT DEFAULT '', session INTEGER NOT NULL DEFAULT 0, connection INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER NOT NULL DEFAULT 0, privacy BLOB);
CREATE TABLE IF NOT EXISTS uploads (site TEXT PRIMARY KEY, message BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS upload_blocks (
    site TEXT, number INTEGER, data BLOB NOT NULL, PRIMARY KEY (site, number));
CREATE TABLE IF NOT EXISTS updates (
    round_number INTEGER, site TEXT, samples INTEGER NOT NULL, payload BLOB NOT NULL, checksum BLOB,
    PRIMARY KEY (round_number, site));
CREATE TABLE IF NOT EXISTS versions (
    version INTEGER PRIMARY KEY, head_digest BLOB NOT NULL, payload BLOB NOT NULL, payload_digest BLOB);
CREATE INDEX IF NOT EXISTS versions_by_payload ON versions (payload_digest);
CREATE TABLE IF NOT EXISTS draws (round_number INTEGER PRIMARY KEY, drawn_below INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS whole_heads (version INTEGER PRIMARY KEY, head BLOB NOT NULL, checksum BLOB);
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY, plan BLOB, version INTEGER, head BLOB, head_digest BLOB);
CREATE TABLE IF NOT EXISTS aggregation (
    id INTEGER PRIMARY KEY CHECK (id = 1), rule TEXT, round_number INTEGER, state BLOB, remarks BLOB,
    checksum BLOB);
CREATE TABLE IF NOT EXISTS quarantine (site TEXT PRIMARY KEY, reason TEXT, since REAL);
CREATE TABLE IF NOT EXISTS commands (
    id INTEGER PRIMARY KEY, given_at REAL, command BLOB, done_at REAL, answer TEXT, failed INTEGER);
CREATE TABLE IF NOT EXISTS run_classes (run INTEGER PRIMARY KEY, names BLOB NOT NULL);
""" + ";".join(
    schema.strip().rstrip(";")
    for schema in (
        COMMAND_LOG_SCHEMA,
        COUNTED_SCHEMA,
        OVERRIDES_SCHEMA,
        DROPPED_SCHEMA,
        TRAFFIC_SCHEMA,
        METRICS_SCHEMA,
        CHRONICLE_SCHEMA,
    )
)

_OF_ONE_RUN = (
    "federation", "whole_heads", "versions", "updates", "uploads", "upload_blocks", "draws", "aggregation",
    "dropped", "counted",
    *METRICS_TABLES,
)  # fmt: skip


def _from_version_1(database: sqlite3.Connection) -> None:
    """Checksums; the rounds that a site delivered become the last of them; the newest head is kept whole."""
    for column in ("checksum BLOB", "name TEXT", "configured BLOB"):
        database.execute(f"ALTER TABLE federation ADD COLUMN {column}")
    database.execute("ALTER TABLE sites ADD COLUMN last_round INTEGER DEFAULT 0")
    database.execute(
        "UPDATE sites SET last_round ="
        " coalesce((SELECT max(round_number) FROM updates WHERE updates.site = sites.name), 0)"
    )
    database.execute("DELETE FROM updates WHERE payload IS NULL")
    database.execute("ALTER TABLE updates DROP COLUMN size")
    database.execute("ALTER TABLE updates ADD COLUMN checksum BLOB")
    for round_number, site, payload in database.execute(
        "SELECT round_number, site, payload FROM updates"
    ).fetchall():
        database.execute(
            "UPDATE updates SET checksum = ? WHERE round_number = ? AND site = ?",
            (checksum(payload), round_number, site),
        )
    database.execute("CREATE TABLE whole_heads (version INTEGER PRIMARY KEY, head BLOB, checksum BLOB)")
    for plan, head, residual, memory in database.execute(
        "SELECT plan, head, residual, codec_memory FROM federation"
    ).fetchall():
        database.execute(
            "UPDATE federation SET plan = ?, checksum = ?",
            (msgspec.msgpack.encode(plan_of_version_1(plan)), checksum(head, residual, memory)),
        )
        database.execute(
            "INSERT INTO whole_heads SELECT max(version), ?, ? FROM versions", (head, checksum(head))
        )


def _from_version_2(database: sqlite3.Connection) -> None:
    """Which version of the software each site runs."""
    database.execute("ALTER TABLE sites ADD COLUMN software TEXT DEFAULT ''")


def _from_version_3(database: sqlite3.Connection) -> None:
    """When each site said last what it said. Uploads under way are of an earlier format: they come again."""
    for column in ("session", "connection", "sequence"):
        database.execute(f"ALTER TABLE sites ADD COLUMN {column} INTEGER DEFAULT 0")
    database.execute("DELETE FROM uploads")
    database.execute("DELETE FROM upload_blocks")


def _from_version_4(database: sqlite3.Connection) -> None:
    """What each site said last that its privacy has cost. Uploads under way come again as they are now."""
    database.execute("ALTER TABLE sites ADD COLUMN privacy BLOB")
    database.execute("DELETE FROM uploads")
    database.execute("DELETE FROM upload_blocks")


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
    """A site's encoded delta, the round that it was trained for, and the number of samples behind it."""

    site: str
    round_number: int
    samples: int
    payload: bytes


@dataclass(frozen=True)
class StoredAggregation:
    """What the newest version was made by: the rule's name, its encoded state and its encoded remarks."""

    rule: str
    round_number: int
    state: bytes
    remarks: bytes


@dataclass(frozen=True)
class Quarantine:
    """Why a site does not count, and since when (seconds since 1970)."""

    reason: str
    since: float


class Store:
    """Opens or creates the state at `path`. Raises StorageError when it cannot be read or written."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Open it; `durable` as in `Database`."""
        self.path = path
        migrations = [_from_version_1, _from_version_2, _from_version_3, _from_version_4]
        self._database = Database(path, _SCHEMA, durable=durable, migrations=migrations)
        self.command_log = CommandLog(self._database)
        """Every command that was carried out, signed."""
        self.counted = Counted(self._database)
        """Whose updates count, in which round of the run."""
        self.overrides = Overrides(self._database)
        """Settings that commands changed."""
        self.dropped = Dropped(self._database)
        """Whose updates of which rounds do not count."""
        self.traffic = Traffic(self._database)
        """Bytes to and from the broker, by run and round."""
        self.metrics = MetricsTable(self._database)
        """What members share of each version of the run."""
        self.chronicle = ChronicleTable(self._database)
        """What has happened, for people."""

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def begin(self, plan: Plan, head: bytes, head_digest: bytes) -> None:
        """Record the plan and version 0 of a new federation."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO federation (id, plan, head, codec_memory, checksum) VALUES (1, ?, ?, x'', ?)",
                (msgspec.msgpack.encode(plan), head, checksum(head, None, b"")),
            )
            database.execute("INSERT INTO versions VALUES (0, ?, x'', x'')", (head_digest,))
            database.execute("INSERT INTO whole_heads VALUES (0, ?, ?)", (head, checksum(head)))

    def describe(self, name: str, configured: dict[str, float]) -> None:
        """Record the federation's name, and what its configuration said last of what may change in a run."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE federation SET name = ?, configured = ?", (name, msgspec.json.encode(configured))
            )

    def federation_name(self) -> str | None:
        """Return the federation's name; None when the state is older than its record."""
        row = self._database.row("SELECT name FROM federation")
        return None if row is None else row[0]

    def configured(self) -> dict[str, float] | None:
        """Return what the configuration said last of what may change in a run, if that is known."""
        row = self._database.row("SELECT configured FROM federation")
        if row is None or row[0] is None:
            return None
        return self._database.decoded(row[0], dict[str, float], "the recorded configuration", msgspec.json)

    def plan(self) -> Plan | None:
        """Return the plan of the federation that lives here, or None when none has begun."""
        row = self._database.row("SELECT plan FROM federation")
        return None if row is None else self._database.decoded(row[0], Plan, "the plan")

    def begin_run(self, plan: Plan, head: bytes, head_digest: bytes) -> None:
        """Put the run that lives here away, with its newest head, and begin another with the same sites."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO runs SELECT ?, plan, version, head, head_digest FROM federation"
                " JOIN versions ON version = (SELECT max(version) FROM versions)",
                (self._number(),),
            )
            for table in _OF_ONE_RUN:
                database.execute(f"DELETE FROM {table}")
            database.execute("UPDATE sites SET last_round = 0, privacy = NULL")
            self.begin(plan, head, head_digest)
        self.metrics.forget_run()

    def name_classes(self, run: int, names: Sequence[str]) -> None:
        """Record the classes of a run's bundle, in their order."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO run_classes VALUES (?, ?)", (run, msgspec.json.encode(names))
            )

    def class_names(self, run: int) -> list[str] | None:
        """Return the classes of a run's bundle; None where an earlier release began it."""
        row = self._database.row("SELECT names FROM run_classes WHERE run = ?", (run,))
        if row is None:
            return None
        return self._database.decoded(row[0], list[str], "the classes of a run", msgspec.json)

    def _number(self) -> int:
        plan = self.plan()
        assert plan is not None
        return plan.number

    def ended_run(self, number: int) -> tuple[Plan, int, bytes, bytes] | None:
        """Return plan, last version, its head and the head's digest of a run that was put away."""
        row = self._database.row(
            "SELECT plan, version, head, head_digest FROM runs WHERE number = ?", (number,)
        )
        return None if row is None else (self._database.decoded(row[0], Plan, "the plan of a run"), *row[1:])

    def revise(self, plan: Plan) -> None:
        """Replace the plan by a later revision of it."""
        with self._database.transaction() as database:
            database.execute("UPDATE federation SET plan = ?", (msgspec.msgpack.encode(plan),))

    def head(self) -> StoredHead:
        """Return the newest global head, and what the broadcast's encoder keeps between rounds.

        Raises StorageError when its checksum is wrong.
        """
        *values, expected = self._database.row(
            "SELECT head, residual, codec_memory, checksum FROM federation"
        )
        if checksum(*values) != expected:
            raise self._database.damaged("the global head", "restore a backup")
        return StoredHead(*values)

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

    def newest_digests(self, number: int) -> list[tuple[int, bytes]]:
        """Return the newest versions that are kept with the digests of their heads, newest first."""
        query = "SELECT version, head_digest FROM versions ORDER BY version DESC LIMIT ?"
        return self._database.rows(query, (number,))

    def payload_with_digest(self, digest: bytes) -> bytes | None:
        """Return the encoded delta whose SHA-256 this is, of whatever version."""
        row = self._database.row("SELECT payload FROM versions WHERE payload_digest = ?", (digest,))
        return None if row is None else row[0]

    def sites(self) -> dict[str, bytes]:
        """Return the public key of each site that was admitted."""
        return dict(self._database.rows("SELECT name, public_key FROM sites"))

    def software(self) -> dict[str, str]:
        """Return the version of the software that each site said it runs; empty where it said none."""
        return dict(self._database.rows("SELECT name, software FROM sites"))

    def privacy(self) -> dict[str, PrivacySpent]:
        """Return what each site said last in this run that its privacy has cost, if it said so."""
        rows = self._database.rows("SELECT name, privacy FROM sites WHERE privacy IS NOT NULL")
        return {
            site: self._database.decoded(spent, PrivacySpent, f"what the privacy of {site} has cost")
            for site, spent in rows
        }

    def moments(self) -> dict[str, Moment]:
        """Return the latest moment at which each site is known to have said something."""
        rows = self._database.rows("SELECT name, session, connection, sequence FROM sites WHERE session > 0")
        return {site: Moment(*moment) for site, *moment in rows}

    def note_moment(self, site: str, moment: Moment) -> None:
        """Record when a site that was admitted said something last."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE sites SET session = ?, connection = ?, sequence = ? WHERE name = ?",
                (moment.session, moment.connection, moment.sequence, site),
            )

    def admit(self, site: str, public_key: bytes, samples: int, software: str) -> None:
        """Record a site and pin its public key."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO sites (name, public_key, samples, software) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET samples = excluded.samples, software = excluded.software",
                (site, public_key, samples, software),
            )

    def forget_site(self, site: str) -> None:
        """Forget a site, so that its name may belong to another key."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM sites WHERE name = ?", (site,))
            self.metrics.forget_site(site)

    def note_software(self, site: str, software: str) -> None:
        """Record which version a site runs that was admitted before."""
        with self._database.transaction() as database:
            database.execute("UPDATE sites SET software = ? WHERE name = ?", (software, site))

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
            found[site] = (self._database.decoded(message, Update, f"the upload of {site}"), dict(blocks))
        return found

    def forget_upload(self, site: str) -> None:
        """Drop the site's upload and its blocks."""
        with self._database.transaction() as database:
            _forget_upload(database, site)

    def add_update(
        self,
        round_number: int,
        site: str,
        samples: int,
        payload: bytes,
        privacy: PrivacySpent | None = None,
    ) -> None:
        """Record a complete, valid update, and forget the upload that it came from.

        `privacy` is what the site says that its own has cost.
        """
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO updates VALUES (?, ?, ?, ?, ?)",
                (round_number, site, samples, payload, checksum(payload)),
            )
            database.execute(
                "UPDATE sites SET last_round = max(last_round, ?), privacy = ? WHERE name = ?",
                (round_number, None if privacy is None else msgspec.msgpack.encode(privacy), site),
            )
            self.counted.add([site], round_number)
            _forget_upload(database, site)

    def last_round(self, site: str) -> int:
        """Return the last round for which an update of this site was stored, however long ago; 0: none.

        A site sends the update of a round only when the one before is settled, so that none of an earlier
        round can follow.
        """
        row = self._database.row("SELECT last_round FROM sites WHERE name = ?", (site,))
        return 0 if row is None else int(row[0])

    def stored_updates(self) -> list[tuple[str, int]]:
        """Return site and round of each update that waits to be aggregated, sorted."""
        return self._database.rows("SELECT site, round_number FROM updates ORDER BY site, round_number")

    def made_here(self, version: int) -> bool:
        """Whether a round made this version here, and so it is known of whose updates.

        False for one that was taken back or rolled back to, and for one that is no longer kept.
        """
        row = self._database.row("SELECT 1 FROM versions WHERE version = ? AND payload != x''", (version,))
        return row is not None

    def damaged_updates(self) -> list[tuple[str, int]]:
        """Return site and round of each stored update that is not what was stored."""
        query = "SELECT payload, checksum FROM updates WHERE round_number = ? AND site = ?"
        found = []
        for site, round_number in self.stored_updates():
            payload, expected = self._database.row(query, (round_number, site))
            if checksum(payload) != expected:
                found.append((site, round_number))
        return found

    def forget_update(self, round_number: int, site: str) -> None:
        """Drop an update, so that it may come again."""
        with self._database.transaction() as database:
            self.counted.forget(site, round_number)
            database.execute("DELETE FROM updates WHERE round_number = ? AND site = ?", (round_number, site))
            database.execute(
                "UPDATE sites SET last_round = ? WHERE name = ? AND last_round = ?",
                (round_number - 1, site, round_number),
            )

    def samples(self) -> list[tuple[str, int, int]]:
        """Return site, round and samples of each update that waits to be aggregated, sorted."""
        query = "SELECT site, round_number, samples FROM updates ORDER BY site, round_number"
        return self._database.rows(query)

    def update(self, site: str, round_number: int) -> StoredUpdate:
        """Return an update that waits to be aggregated."""
        query = "SELECT samples, payload FROM updates WHERE round_number = ? AND site = ?"
        return StoredUpdate(site, round_number, *self._database.row(query, (round_number, site)))

    def updates(self) -> Iterator[StoredUpdate]:
        """Yield what waits to be aggregated one at a time, sorted by site and round."""
        for site, round_number in self.stored_updates():
            yield self.update(site, round_number)

    def aggregation(self) -> StoredAggregation | None:
        """Return what the newest version was made by; None where no round made it here, or it is damaged."""
        row = self._database.row("SELECT rule, round_number, state, remarks, checksum FROM aggregation")
        if row is None or checksum(row[0].encode(), *row[2:4]) != row[4]:
            return None
        return StoredAggregation(*row[:4])

    def quarantined(self) -> dict[str, Quarantine]:
        """Return the sites that do not count."""
        rows = self._database.rows("SELECT site, reason, since FROM quarantine ORDER BY site")
        return {site: Quarantine(reason, since) for site, reason, since in rows}

    def quarantine(self, site: str, why: Quarantine) -> list[tuple[str, int]]:
        """Let a site not count, and drop what it has delivered; return site and round of what was dropped."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", (site, why.reason, why.since)
            )
            return self.forget_delivered(site)

    def forget_delivered(self, site: str) -> list[tuple[str, int]]:
        """Drop what a site has delivered and is delivering; return site and round of what was dropped."""
        with self._database.transaction() as database:
            dropped = [stored for stored in self.stored_updates() if stored[0] == site]
            for _, round_number in reversed(dropped):
                self.forget_update(round_number, site)
            _forget_upload(database, site)
        return dropped

    def release(self, site: str) -> None:
        """Let a site count again."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM quarantine WHERE site = ?", (site,))

    def draw(self, round_number: int, drawn_below: int) -> None:
        """Record which lots are drawn for a round; what was drawn long ago is forgotten."""
        with self._database.transaction() as database:
            database.execute("INSERT OR REPLACE INTO draws VALUES (?, ?)", (round_number, drawn_below))
            database.execute("DELETE FROM draws WHERE round_number < ?", (round_number - MAXIMUM_STALENESS,))

    def drawn_below(self, round_number: int) -> int | None:
        """Return which lots are drawn for a round; None where nothing is known of it."""
        row = self._database.row("SELECT drawn_below FROM draws WHERE round_number = ?", (round_number,))
        return None if row is None else int(row[0])

    def advance(
        self,
        made: StoredVersion,
        newest: StoredHead,
        by: StoredAggregation | None = None,
        contributors: Collection[str] = (),
    ) -> None:
        """Make `made` the newest version. The round's updates go; that they were counted stays on record.

        `by` says by which rule, None that it was none: what a rule kept of the round before goes. The updates
        of `contributors` counted without being stored.
        """
        payload_digest = hashlib.sha256(made.payload).digest()
        with self._database.transaction() as database:
            database.execute(
                "UPDATE federation SET head = ?, residual = ?, codec_memory = ?, checksum = ?",
                (
                    newest.head,
                    newest.residual,
                    newest.codec_memory,
                    checksum(newest.head, newest.residual, newest.codec_memory),
                ),
            )
            database.execute(
                "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?)",
                (made.version, made.head_digest, made.payload, payload_digest),
            )
            database.execute("DELETE FROM aggregation")
            if by is not None:
                database.execute(
                    "INSERT INTO aggregation VALUES (1, ?, ?, ?, ?, ?)",
                    (by.rule, by.round_number, by.state, by.remarks,
                     checksum(by.rule.encode(), by.state, by.remarks)),
                )  # fmt: skip
            database.executemany(
                "UPDATE sites SET last_round = max(last_round, ?) WHERE name = ?",
                [(made.version, site) for site in contributors],
            )
            self.counted.add(contributors, made.version)
            database.execute("DELETE FROM updates WHERE round_number <= ?", (made.version,))
            database.execute("DELETE FROM uploads")
            database.execute("DELETE FROM upload_blocks")

    def whole_head_before(self, version: int) -> tuple[int, bytes] | None:
        """Return the newest head that is kept whole and not after `version`, with its version, if any is."""
        query = "SELECT version, head, checksum FROM whole_heads WHERE version <= ? ORDER BY version DESC"
        rows = self._database.rows(query, (version,))
        return next(((found, head) for found, head, expected in rows if checksum(head) == expected), None)

    def delta_bytes(self) -> int:
        """Return how many bytes the stored deltas take."""
        return int(self._database.row("SELECT coalesce(sum(length(payload)), 0) FROM versions")[0])

    def keep_whole(self, version: int, head: bytes) -> None:
        """Keep the head of a version whole, so that deltas may lead on from it."""
        with self._database.transaction() as database:
            database.execute(
                "INSERT OR REPLACE INTO whole_heads VALUES (?, ?, ?)", (version, head, checksum(head))
            )

    def forget_before(self, version: int, kept: int | None = None) -> None:
        """Drop the deltas that lead to versions before this one, and heads of before it but for one."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM versions WHERE version < ?", (version,))
            database.execute(
                "DELETE FROM whole_heads WHERE version < ? AND version IS NOT ?", (version, kept)
            )

    def give_command(self, command: bytes, now: float) -> int:
        """Record what the operator asks of the running aggregator; return its number."""
        with self._database.transaction() as database:
            cursor = database.execute(
                "INSERT INTO commands (given_at, command) VALUES (?, ?)", (now, command)
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def open_commands(self) -> list[tuple[int, float, bytes]]:
        """Return number, time and command of what nobody has carried out yet, oldest first."""
        return self._database.rows(
            "SELECT id, given_at, command FROM commands WHERE done_at IS NULL ORDER BY id"
        )

    def commands_done(self, since: float) -> list[tuple[float, bytes, str, bool]]:
        """Return time, command, answer and whether it failed of what was given since, newest first."""
        rows = self._database.rows(
            "SELECT given_at, command, answer, failed FROM commands"
            " WHERE done_at IS NOT NULL AND given_at >= ? ORDER BY id DESC",
            (since,),
        )
        return [(given_at, command, answer, bool(failed)) for given_at, command, answer, failed in rows]

    def finish_command(self, number: int, answer: str, *, failed: bool, now: float) -> None:
        """Record what came of a command."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE commands SET done_at = ?, answer = ?, failed = ? WHERE id = ?",
                (now, answer, failed, number),
            )

    def command_answer(self, number: int) -> tuple[str, bool] | None:
        """Return what came of a command and whether it failed; None while it is open."""
        row = self._database.row("SELECT answer, failed FROM commands WHERE id = ? AND done_at", (number,))
        return None if row is None else (row[0], bool(row[1]))

    def forget_command(self, number: int) -> None:
        """Drop a command and its answer."""
        with self._database.transaction() as database:
            database.execute("DELETE FROM commands WHERE id = ?", (number,))

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Let what is stored inside the block reach the disk together when it ends: one wait, not many."""
        with self._database.transaction():
            yield

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the whole state, while it is in use."""
        self._database.copy_to(path)


def _forget_upload(database: sqlite3.Connection, site: str) -> None:
    database.execute("DELETE FROM uploads WHERE site = ?", (site,))
    database.execute("DELETE FROM upload_blocks WHERE site = ?", (site,))
