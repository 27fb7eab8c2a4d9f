"""Following the coordinator's plans: a revision at once, a later run once the aggregator admits this site.

    plan of a later run -> candidate -> Join -> admitted -> the run begins, and the one before is put away

A plan may be an old copy, the answer to a new request not: so a run begins with the answer.
"""

from fedmedclip.edge_client.site.application import Application
from fedmedclip.edge_client.site.membership import Membership
from fedmedclip.edge_client.site.plans import check_plan, reason_not_to
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.run import Run
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.envelope import Envelope
from fedmedclip.protocol.messages import JoinAnswer, Message, Plan


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
    ) -> None:
        self._identity = identity
        self._learner = learner
        self._state = state
        self._run = run
        self._application = application
        self._membership = membership
        self.candidate: tuple[Plan, bytes] | None = None
        """A later plan, as it came, which the aggregator has not confirmed yet."""

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
            self._application.decline(plan, reason)
            return self._ask(plan, now) if online else []
        self._application.declined = None
        if followed is not None and plan.identity == followed.identity:
            self.candidate = None
            self._run.revise(plan, sealed)
            return []
        if candidate is None or candidate[0].identity != plan.identity:
            self._application.begin()
        self.candidate = (plan, sealed)
        return self._ask(plan, now)

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
