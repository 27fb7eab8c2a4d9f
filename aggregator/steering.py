"""What the operator changes while a run goes on: its plan, its configuration, and which sites count."""

import logging

import msgspec

from fedmedclip.aggregator.admission import Admission
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.progress import DROPPED, Progress
from fedmedclip.aggregator.round_events import (
    HeadAdvanced,
    SiteExcused,
    SiteQuarantined,
    SiteReleased,
    Tick,
)
from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.aggregator.store import Quarantine
from fedmedclip.protocol.errors import InvalidInputError

log = logging.getLogger("fedmedclip.aggregator")


class Steering:
    """Changes a run that goes on. Each of these returns what to publish of it."""

    def __init__(self, run: Run, progress: Progress, admission: Admission) -> None:
        self._run = run
        self._progress = progress
        self._admission = admission
        self._nobody_since: float | None = None

    def revise(
        self,
        now: float,
        *,
        rounds: int | None = None,
        paused: bool | None = None,
        maximum_update_norm: float | None = None,
        aggregator_key: bytes | None = None,
    ) -> list[Outgoing]:
        """Change the run while it goes on, and tell the sites; None leaves a value as it is."""
        run = self._run
        wanted = {
            "rounds": rounds,
            "paused": paused,
            "maximum_update_norm": maximum_update_norm,
            "aggregator_key": aggregator_key,
        }
        changes = {
            name: value
            for name, value in wanted.items()
            if value is not None and value != getattr(run.plan, name)
        }
        if not changes:
            return []
        # By the clock: one that was lost with this aggregator's state is not given to another change.
        revision = max(run.plan.revision + 1, int(run.wall_clock()))
        self._progress.follow_plan(msgspec.structs.replace(run.plan, **changes, revision=revision))
        log.info(
            "the run is changed: %s", ", ".join(f"{name} {_shown(value)}" for name, value in changes.items())
        )
        return [*run.opening(), *self._progress.advance(Tick(), now)]

    def roll_back(self, to_version: int, now: float) -> list[Outgoing]:
        """Go on from the head of an earlier version: it becomes a new one, which every site follows.

        Members that are ahead of what is here follow too, so this also ends a dispute with them. The run
        keeps as many rounds as were left. Raises InvalidInputError when that head is not to be had.
        """
        run = self._run
        ahead = max(run.recovery.ahead.values(), default=0)
        before = run.global_head.version
        version = run.global_head.roll_back(to_version, ahead)
        run.intake.clear()
        run.recovery.over(version, run.plan.revision)
        log.warning("rolled back: version %d has the head of version %d", version, to_version)
        run.chronicle.note("rolled back", "", f"version {version} has the head of version {to_version}")
        # First the round: an announcement says who is drawn for it.
        advanced = self._progress.advance(HeadAdvanced(version), now)
        later = self.revise(now, rounds=run.plan.rounds + version - before)
        return [*later, *run.opening(), *advanced]

    def leave_out(self, site: str, now: float) -> list[Outgoing]:
        """Do not wait for a site in the open round. Raises InvalidInputError when it is no member."""
        self._require_member(site)
        return self._progress.advance(SiteExcused(site, "left out by the operator"), now)

    def drop(self, site: str, now: float) -> list[Outgoing]:
        """Let the open round be made without a site, whatever it has delivered or delivers for it.

        It is asked for its update once more, so that it reads from the answer that this does not count, and
        goes on to the next round. Raises InvalidInputError when it is no member, or no round is open.
        """
        self._require_member(site)
        run, round_number = self._run, self._run.global_head.version + 1
        if run.global_head.finished:
            raise InvalidInputError(f"no round is open: the run is finished at version {round_number - 1}")
        if run.plan.secure is not None:
            raise InvalidInputError(
                "where updates are summed under masks none can be taken out; leave-out or quarantine the site"
            )
        with run.store.batch():
            run.store.dropped.add(site, round_number)
            for _, of_round in run.store.forget_delivered(site):
                run.store.dropped.add(site, of_round)
                self._progress.lose_update(site, of_round, now)
        run.intake.forget(site)
        log.warning("round %d is made without %s", round_number, site)
        told = run.to(site, run.global_head.call())
        return [*told, *self._progress.advance(SiteExcused(site, DROPPED), now)]

    def pass_over(self, now: float) -> list[Outgoing]:
        """Go on from the same head where all who could have delivered were dropped, at the latest after the
        time limit: they are told that the round goes on without them, so nobody else would ever end it.
        """
        run, rounds = self._run, self._progress.rounds
        excused = rounds.excused()
        over = run.global_head.finished or run.plan.paused
        if over or DROPPED not in excused.values() or rounds.awaited or rounds.delivered:
            self._nobody_since = None
            return []
        if self._nobody_since is None:
            self._nobody_since = now
        may_come = rounds.members - excused.keys() - run.members.unable.keys()
        if may_come and now - self._nobody_since < run.settings.round_timeout_seconds:
            return []
        self._nobody_since = None
        log.warning("nobody is left for round %d: going on from the same head", run.global_head.version + 1)
        return self.roll_back(run.global_head.version, now)

    def change_deadline(self, seconds: float, now: float) -> list[Outgoing]:
        """Give the open round and later ones another time limit, until the configuration's is edited."""
        run, name = self._run, "round_timeout_seconds"
        run.store.overrides.set(name, seconds, run.settings.round_timeout_seconds)
        federation = msgspec.structs.replace(run.settings, round_timeout_seconds=seconds)
        changed = msgspec.structs.replace(run.configuration, federation=federation)
        run.configuration = run.members.configuration = changed
        self._progress.follow_settings()
        return self._progress.advance(Tick(), now)

    def quarantine(self, site: str, reason: str, now: float) -> list[Outgoing]:
        """Let a site not count until it is released: it is not waited for, and what it delivers is refused.

        What it delivered for the open round is dropped. Refused with the reason, a site tries again, within
        an hour at most, so that it takes part again by itself once it is released; and nothing of it takes
        up room here. Raises InvalidInputError when it is no member.
        """
        self._require_member(site)
        run = self._run
        found = Quarantine(reason, run.wall_clock())
        for _, round_number in run.store.quarantine(site, found):
            self._progress.lose_update(site, round_number, now)
        run.intake.forget(site)
        run.quarantined[site] = found
        log.warning("%s is in quarantine: %s", site, reason or "no reason was given")
        return self._progress.advance(SiteQuarantined(site, run.in_quarantine(site)), now)

    def release(self, site: str, now: float) -> list[Outgoing]:
        """Let a site count again; the open round does not wait for it.

        It is told the newest version, for which it may have an update that was dropped. Raises
        InvalidInputError when it is not in quarantine.
        """
        run = self._run
        if site not in run.quarantined:
            names = ", ".join(sorted(run.quarantined)) or "nobody"
            raise InvalidInputError(f"{site!r} is not in quarantine; {names} is")
        run.store.release(site)
        del run.quarantined[site]
        log.warning("%s is released from quarantine", site)
        return [*run.to(site, run.global_head.call()), *self._progress.advance(SiteReleased(site), now)]

    def reconfigure(
        self, before: AggregatorConfiguration, edited: AggregatorConfiguration, now: float
    ) -> list[Outgoing]:
        """Take over what was edited, of what may change while a run goes on: limits, times, keys, rule.

        Raises InvalidInputError when the federation has another name, or its rule cannot be used.
        """
        run = self._run
        old, new = before.federation, edited.federation
        if new.name != old.name:
            raise InvalidInputError(f"a federation keeps its name: {old.name!r}")
        if new.rule != old.rule:
            run.global_head.rule = rule_for(run.plan.method, new.rule)
        run.configuration = run.members.configuration = edited
        self._progress.follow_settings()
        return [
            *self._admission.follow_membership(now),
            *self.revise(
                now,
                rounds=new.rounds if new.rounds != old.rounds else None,
                maximum_update_norm=(
                    new.maximum_update_norm if new.maximum_update_norm != old.maximum_update_norm else None
                ),
            ),
            *self._progress.advance(Tick(), now),
        ]

    def _require_member(self, site: str) -> None:
        members = self._progress.rounds.members
        if site not in members:
            raise InvalidInputError(f"{site!r} is no member; members are {', '.join(sorted(members))}")


def _shown(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value
