"""Following the coordinator's plans: a revision at once, a later run once the aggregator admits this site.

    plan of a later run -> approved here -> candidate -> Join -> admitted -> the run begins, and the one
    before is put away

A plan may be an old copy, the answer to a new request not: so a run begins with the answer. A plan that this
site's operator has not approved is held until it is: whatever else of its run comes meanwhile is not taken.
"""

import logging

from fedmedclip.edge_client.site.application import Application
from fedmedclip.edge_client.site.membership import Membership
from fedmedclip.edge_client.site.permission import Permission
from fedmedclip.edge_client.site.plans import check_plan, reason_not_to
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.run import Run
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.envelope import Envelope
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import JoinAnswer, Message, Plan

log = logging.getLogger("fedmedclip.site")


class PlanFollower:
    """Which plan this site follows, declines, or waits to be admitted to."""

    def __init__(
        self,
        identity: Identity,
        learner: Learner,
        state: SiteState,
        run: Run,
        application: Application,
        membership: Membership | None,
        permission: Permission,
    ) -> None:
        self._identity = identity
        self._learner = learner
        self._state = state
        self._run = run
        self._application = application
        self._membership = membership
        self.candidate: tuple[Plan, bytes] | None = None
        """A later plan, as it came, which the aggregator has not confirmed yet."""
        self._permission = permission
        self._held: tuple[Plan, bytes] | None = None
        stored = run.stored
        if stored is not None and not stored.finished and (reason := permission.ask(stored.plan)):
            self._hold(stored.plan, b"", reason)

    @property
    def held(self) -> bool:
        """Whether the newest plan is one that this site's operator has not approved, or has refused."""
        return self._held is not None

    @property
    def newest(self) -> Plan | None:
        """The latest plan that is known: followed, declined, or not confirmed yet."""
        if self._application.declined is not None:
            return self._application.declined[0]
        return self._run.plan if self.candidate is None else self.candidate[0]

    @property
    def waits(self) -> bool:
        """Whether the newest plan is one that this site declines, or is not admitted to yet."""
        return self._application.declined is not None or self.candidate is not None

    @property
    def version(self) -> int:
        """The newest version of the newest run's global head that is here; -1 before the first.

        Of a run that is over for the aggregator nothing is said: it would seem to have lost that version.
        """
        follower = self._run.follower
        return -1 if follower is None or self.waits else follower.version

    def key_of(self, plan: Plan) -> bytes:
        """Return the key that signs what is said in a run: by the roster, where there is one, today's."""
        return plan.aggregator_key if self._membership is None else self._membership.coordinator_keys[-1]

    def take(self, plan: Plan, sealed: bytes, now: float, *, online: bool) -> list[Message]:
        """Take part in the run of a plan, follow a later run or revision; an earlier plan is refused.

        `sealed` is the plan as it came. Raises MessageError.
        """
        followed, declined, candidate = self._run.plan, self._application.declined, self.candidate
        if followed is not None and declined is None and _is_of_run(plan, followed):
            self._application.repeat()
        left, why_left = self._run.left or (None, "")
        last = followed or left
        known = [last, declined and declined[0], candidate and candidate[0]]
        check_plan(
            plan,
            [kept for kept in known if kept is not None],
            None if last is None else last.aggregator_key,
            self._identity,
            () if self._membership is None else self._membership.coordinator_keys,
        )
        if plan == self.newest and declined is None:
            self._application.hurry(now)
            if candidate is None:
                self._state.keep_sealed(sealed)
            return []
        gone_by = left is not None and left.identity == plan.identity
        if reason := why_left if gone_by else reason_not_to(plan, self._identity, self._learner):
            self._held = None
            self._application.decline(plan, reason)
        elif reason := self._permission.ask(plan):
            self._hold(plan, sealed, reason)
        if reason:
            self._application.say_again(now)
            return self._ask(plan, now) if online else []
        self._held = self._application.declined = None
        if followed is not None and plan.identity == followed.identity:
            self.candidate = None
            self._run.revise(plan, sealed)
            return []
        if candidate is None or candidate[0].identity != plan.identity:
            self._application.begin()
        self.candidate = (plan, sealed)
        return self._ask(plan, now)

    def reconsider(self, now: float) -> list[Message]:
        """Go by what this site's operator may have decided since: begin, go on, or stop."""
        plan, declined = self.newest, self._application.declined
        stored = self._run.stored
        over = stored is not None and stored.finished and plan == stored.plan
        if plan is None or over or (declined is not None and self._held is None):
            return []
        if reason := self._permission.ask(plan):
            held = self._held or self.candidate or (plan, b"")
            self._hold(plan, held[1], reason)
            return self._ask(plan, now)
        if self._held is None:
            return []
        log.info("run %d is approved", plan.number)
        return self._take_up(*self._held, now)

    def _hold(self, plan: Plan, sealed: bytes, reason: str) -> None:
        """Take no part in the run of a plan for now, and keep what it can be begun with."""
        if self._held is None or self._application.declined != (plan, reason):
            self._application.begin()
            log.warning("run %d is not trained here: %s", plan.number, reason)
        self._held, self.candidate = (plan, sealed), None
        self._application.declined = (plan, reason)

    def _take_up(self, plan: Plan, sealed: bytes, now: float) -> list[Message]:
        """Go on with a plan that was held."""
        declined = self._application.declined
        self._held = self._application.declined = None
        self._application.begin()
        if plan == self._run.plan:
            return self._ask(plan, now)
        try:
            return self.take(plan, sealed, now, online=True)
        except MessageError as error:
            # Say the coordinator's key has changed: the plan comes again, signed with the new one.
            log.warning("the plan of run %d is not followed any more: %s", plan.number, error)
            self._held, self._application.declined = (plan, sealed), declined
            return []

    def _ask(self, plan: Plan, now: float) -> list[Message]:
        return self._application.due(self.version, plan, now)

    def take_answer(self, envelope: Envelope, answer: JoinAnswer, now: float) -> bool:
        """Begin the candidate's run with the answer that admits this site to it; return whether it began.

        Raises MessageError when the aggregator has not signed it.
        """
        assert self.candidate is not None
        plan, sealed = self.candidate
        envelope.verify(self.key_of(plan), plan.identity)
        self._application.take_answer(answer, self.version, now)
        if not self._application.joined:
            return False
        self._run.store(plan, sealed)
        self.candidate = None
        self._run.begin()
        return True


def _is_of_run(plan: Plan, known: Plan) -> bool:
    return (plan.identity, plan.aggregator_key) == (known.identity, known.aggregator_key)
