"""Who comes into the run, and who goes: joins are answered, and whoever is no member any more is let go."""

import logging

from fedmedclip.aggregator.floods import STRANGERS
from fedmedclip.aggregator.progress import Progress
from fedmedclip.aggregator.quorum import QuorumWatch, shortage
from fedmedclip.aggregator.round_events import SiteDeclined, SiteJoined, SiteRemoved
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.protocol import moments
from fedmedclip.protocol.envelope import Envelope
from fedmedclip.protocol.messages import Join, JoinAnswer, Message, Moment, Receipt, Update
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.aggregator")

# How often the plan is published again for sites that know an earlier revision, at most.
_REPEAT_PLAN_SECONDS = 10.0


class Admission:
    """Lets sites into a run, and lets them go."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._plan_repeated_at: float | None = None
        self._quorum = QuorumWatch()

    def join(self, site: str, envelope: Envelope, join: Join, now: float) -> list[Outgoing]:
        """Answer a request to take part. Raises MessageError where its own key has not signed it."""
        members, floods = self._run.members, self._run.floods
        refused = members.is_of_another(site, join)
        reason = members.reason_to_refuse(site, join, self._run.plan.bundle_digest)
        latest = members.latest(site, join.public_key)
        sender = STRANGERS if latest is None else site
        # Whoever is admitted is a member from then on: no newcomer needs a share of what strangers may send.
        admitted = latest is None and not reason and not join.cannot
        if not admitted and floods.drops(sender, "joins", now):
            return []
        envelope.verify(join.public_key, self._run.plan.identity)
        if not admitted:
            floods.take(sender, "joins", now)
        if latest is not None and not moments.is_later(join.moment, latest):
            return self._answer_old(site, join, latest, reason)
        if latest is not None:
            members.note(site, join.moment)
        if join.cannot and not refused:
            members.note_unable(site, join)
            self._quorum.look(self.lacks_consent, now)
            is_member = site in self._progress.rounds.members
            return self._progress.advance(SiteDeclined(site), now) if is_member else []
        if reason:
            floods.warn(sender, now, "%s may not join: %s", site, reason)
            return self._answer(site, join, reason)
        return self._answer(site, join) + self._admit(site, join, now)

    @property
    def lacks_consent(self) -> str:
        """Why no round can close as long as operators do not approve the plan; empty where one can."""
        run = self._run
        if run.global_head.finished:
            return ""
        return shortage(self._progress.rounds.members, run.members.unable, run.settings.minimum_sites)

    def _answer(
        self, site: str, join: Join, reason: str = "", latest: Moment | None = None
    ) -> list[Outgoing]:
        revision = self._run.plan.revision
        answer = JoinAnswer(
            fingerprint(join.public_key), not reason, reason[:400], join.moment, latest, revision
        )
        return self._run.to(site, answer)

    def _answer_old(self, site: str, join: Join, latest: Moment, reason: str) -> list[Outgoing]:
        """Answer a copy of an earlier Join, which changes nothing.

        The very last is answered as it was: the broker delivers twice. To an earlier one is said what came
        later: a site that was restored from a backup, and whose clock stands in the past, learns by it.
        """
        if join.moment == latest:
            return [] if join.cannot else self._answer(site, join, reason)
        old = "this site has said something later than this request; it is an old copy, or it was restored"
        return self._answer(site, join, old, latest)

    def _admit(self, site: str, join: Join, now: float) -> list[Outgoing]:
        run, head = self._run, self._run.global_head
        run.members.admit(site, join)
        run.holds(site, join.version)
        run.recovery.tell_revision(site, join.revision, run.plan.revision)
        drawn_before = head.drawn_below
        advanced = self._progress.advance(SiteJoined(site), now)
        self._quorum.look(self.lacks_consent, now)
        drawn_below = head.drawn_below
        called: list[Outgoing] = []
        if drawn_below is not None and drawn_below == drawn_before and self._progress.rounds.drawn(site):
            # It may have been called after the announcement that it reads at the broker.
            called = run.to(site, head.call())
        return [*called, *self._repeat_plan(join, now), *advanced]

    def _repeat_plan(self, join: Join, now: float) -> list[Outgoing]:
        """Publish the plan again for a site that knows an earlier revision, from an old copy."""
        said = self._plan_repeated_at
        known = join.revision >= self._run.plan.revision
        if known or (said is not None and now - said < _REPEAT_PLAN_SECONDS):
            return []
        self._plan_repeated_at = now
        return self._run.opening()[:1]

    def follow_membership(self, now: float) -> list[Outgoing]:
        """Let go whoever is no member any more, with what it delivered, and take back who is one again."""
        outgoing: list[Outgoing] = []
        rounds, active = self._progress.rounds, set(self._run.members.active)
        for site in sorted(rounds.members - active):
            outgoing += self._let_go(site, now)
        for site in sorted(active - rounds.members):
            outgoing += self._progress.advance(SiteJoined(site), now)
        return outgoing

    def turn_away(self, site: str, message: Message, reason: str, now: float) -> list[Outgoing]:
        """Refuse a message of a site that is no member any more."""
        outgoing = self._let_go(site, now) if site in self._progress.rounds.members else []
        self._run.refuse(site, site, reason, now)
        if isinstance(message, Update):
            receipt = Receipt(message.round_number, False, reason[:400], False, message.mark)
            outgoing += self._run.to(site, receipt)
        return outgoing

    def _let_go(self, site: str, now: float) -> list[Outgoing]:
        run = self._run
        reason = run.members.reason_inactive(site)
        log.warning("%s; what it delivered for the open round does not count", reason)
        for owner, round_number in run.store.stored_updates():
            if owner == site:
                run.store.forget_update(round_number, site)
        run.intake.forget(site)
        run.requests.forget(site)
        run.recovery.forget(site)
        run.versions_held.pop(site, None)
        run.store.metrics.forget_site(site)
        return self._progress.advance(SiteRemoved(site), now)
