"""The plans that this site has heard of, and what its operator has decided of each.

Decisions are kept for ever, in the site's database: the site looks there, and whoever decides writes there,
from another process or this one.
"""

import time
from collections.abc import Collection
from typing import Any, Literal

import msgspec

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.plan_words import scope_hash, terms_hash

CONSENT_SCHEMA = """
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY, terms TEXT NOT NULL, scope TEXT NOT NULL, plan BLOB,
    approved INTEGER NOT NULL, decided_by TEXT NOT NULL, decided_at REAL NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS heard_plan (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB NOT NULL, waits INTEGER NOT NULL);
"""

Standing = Literal["approved", "more rounds", "refused", "undecided"]
"""How a plan stands here; "more rounds": approved, but for fewer rounds than it has."""


class Decision(msgspec.Struct, frozen=True):
    """What `by` (a login name, or "policy") decided at `at`, in seconds since 1970.

    `terms` is the hash of the plan: run number `run` with `rounds`. Both are 0 in an approval that was given
    in advance, by the hash alone.
    """

    terms: str
    run: int
    rounds: int
    approved: bool
    by: str
    at: float
    reason: str


class Consents:
    """Every decision of this site's operator, and the newest plan that was heard."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._own_decisions = 0

    def note_asked(self, plan: Plan) -> None:
        """Record that a plan waits for a decision."""
        self._note(plan, waits=True)

    def note_heard(self, plan: Plan) -> None:
        """Record the newest plan, of which nothing has to be decided now."""
        self._note(plan, waits=False)

    def _note(self, plan: Plan, *, waits: bool) -> None:
        row = (msgspec.msgpack.encode(plan), int(waits))
        if self._database.row("SELECT plan, waits FROM heard_plan") != row:
            with self._database.transaction() as database:
                database.execute("INSERT OR REPLACE INTO heard_plan VALUES (1, ?, ?)", row)

    def heard(self) -> Plan | None:
        """Return the newest plan that was heard, decided or not."""
        row = self._database.row("SELECT plan FROM heard_plan")
        return None if row is None else self._database.decoded(row[0], Plan, "the plan that was heard")

    def asked(self) -> Plan | None:
        """Return the plan that waits for a decision, if one does."""
        waits = self._database.row("SELECT 1 FROM heard_plan WHERE waits")
        return self.heard() if waits else None

    def decide(self, plan: Plan, approved: bool, by: str, reason: str = "") -> None:
        """Record a decision of a plan; it takes effect in a site that runs within a second or two."""
        encoded = msgspec.msgpack.encode(plan)
        self._insert(terms_hash(plan), scope_hash(plan), encoded, approved, by, reason)

    def approve_in_advance(self, terms: str, by: str, reason: str = "") -> None:
        """Record the approval of a plan that has not come yet, by its hash."""
        self._insert(terms, "", None, True, by, reason)

    def _insert(
        self, terms: str, scope: str, plan: bytes | None, approved: bool, by: str, reason: str
    ) -> None:
        with self._database.transaction() as database:
            database.execute(
                "INSERT INTO decisions (terms, scope, plan, approved, decided_by, decided_at, reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (terms, scope, plan, int(approved), by, time.time(), reason),
            )
            database.execute("UPDATE heard_plan SET waits = 0 WHERE plan = ?", (plan,))
        self._own_decisions += 1

    def bind_advance(self, plan: Plan) -> None:
        """Let an approval that was given in advance be one of a plan that has come."""
        newest = self._newest(plan)
        if newest is not None and newest[0] is None:
            _, approved, by, reason = newest
            self.decide(plan, bool(approved), by, reason)

    def _newest(self, plan: Plan) -> tuple[bytes | None, int, str, str] | None:
        found: tuple[bytes | None, int, str, str] | None = self._database.row(
            "SELECT plan, approved, decided_by, reason FROM decisions"
            " WHERE scope = ? OR (scope = '' AND terms = ?) ORDER BY number DESC LIMIT 1",
            (scope_hash(plan), terms_hash(plan)),
        )
        return found

    def refusal(self, plan: Plan) -> str | None:
        """Return the reason with which this plan's run was refused last; None where it was not."""
        newest = self._newest(plan)
        return None if newest is None or newest[1] else newest[3]

    def standing(self, plan: Plan, coordinator_keys: Collection[bytes] = ()) -> Standing:
        """Return how a plan stands by the newest decision of its run.

        An approval covers fewer rounds, a smaller norm, a pause, and another key of `coordinator_keys`, which
        the coordinator has had by the roster. A refusal is one of the very same terms.
        """
        newest = self._newest(plan)
        if newest is None:
            return "undecided"
        decided = plan if newest[0] is None else self._decoded(newest[0])
        if not newest[1]:
            return "refused" if terms_hash(decided) == terms_hash(plan) else "undecided"
        if decided.aggregator_key not in (plan.aggregator_key, *coordinator_keys):
            return "undecided"
        if plan.maximum_update_norm > decided.maximum_update_norm:
            return "undecided"
        return "approved" if plan.rounds <= decided.rounds else "more rounds"

    def covers(
        self, plan: Plan, round_number: int | None = None, coordinator_keys: Collection[bytes] = ()
    ) -> bool:
        """Whether the operator has approved a plan with all of its rounds, or one round of it."""
        standing = self.standing(plan, coordinator_keys)
        if standing == "more rounds" and round_number is not None:
            return round_number <= self.approved_rounds(plan)
        return standing == "approved"

    def approved_rounds(self, plan: Plan) -> int:
        """Return how many rounds of a plan's run are approved by the newest decision; 0 for none."""
        newest = self._newest(plan)
        if newest is None or not newest[1]:
            return 0
        return plan.rounds if newest[0] is None else self._decoded(newest[0]).rounds

    def decisions(self) -> list[Decision]:
        """Return every decision, oldest first."""
        rows = self._database.rows(
            "SELECT terms, plan, approved, decided_by, decided_at, reason FROM decisions ORDER BY number"
        )
        return [self._decision(*row) for row in rows]

    def _decision(
        self, terms: str, plan: bytes | None, approved: int, by: str, at: float, reason: str
    ) -> Decision:
        decided = None if plan is None else self._decoded(plan)
        run, rounds = (0, 0) if decided is None else (decided.number, decided.rounds)
        return Decision(terms, run, rounds, bool(approved), by, at, reason)

    def _decoded(self, plan: Any) -> Plan:
        return self._database.decoded(plan, Plan, "a plan that was decided")

    def changes(self) -> tuple[int, int]:
        """Return what differs once anybody has decided anything: cheap enough for every second.

        SQLite's `data_version` changes with the commits of other connections only.
        """
        (others,) = self._database.row("PRAGMA data_version")
        return int(others), self._own_decisions
