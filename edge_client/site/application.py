"""Asking to take part, or saying why not, and hearing the answer."""

import logging

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.watch import Nobody, Observer
from fedmedclip.protocol import moments
from fedmedclip.protocol.messages import Join, JoinAnswer, Message, Moment, Plan
from fedmedclip.protocol.moments import Moments
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.site")

# For the answer to a Join, once the aggregator has shown that it is there.
ANSWER_SECONDS = 3.0
DECLINE_AGAIN_SECONDS = 600.0


class Application:
    """Whether this site takes part in the run, as far as it and the aggregator have said.

    An answer counts when it is to a Join of this connection, and none to a later one was there: so no copy of
    an earlier answer does.
    """

    def __init__(self, identity: Identity, learner: Learner, moments: Moments) -> None:
        self._identity = identity
        self._learner = learner
        self._moments = moments
        self.asked: Moment | None = None
        """When this site asked last, on this connection."""
        self._asked_first: Moment | None = None
        self._answered: Moment | None = None
        self._revision = 0
        self._asked_at: float | None = None
        self._again = False
        self.joined = False
        """Whether the aggregator has admitted this site on this connection."""
        self.declined: tuple[Plan, str] | None = None
        """The plan that this site cannot take part in, and why."""
        self.observer: Observer = Nobody()

    def begin(self) -> None:
        """Begin a connection, or a run: this site has not joined, and may ask at once."""
        self.joined, self._asked_at = False, None
        self.asked = self._asked_first = self._answered = None
        self._revision = 0

    def knows(self, plan: Plan) -> bool:
        """Whether the aggregator has told, in its answer, of no later revision of the plan than this one."""
        return plan.revision >= self._revision

    def decline(self, plan: Plan, reason: str) -> None:
        """Take no part in the run of a plan; a new reason is said at once."""
        if self.declined is None or self.declined[0] != plan:
            log.error("cannot take part in run %d: %s", plan.number, reason)
            self.observer.note("declined", reason)
            self._asked_at = None
        self.declined = (plan, reason)

    def say_again(self, now: float) -> None:
        """Say again soon why this site takes no part: whoever repeats its plan may have forgotten it."""
        if self._asked_at is not None and now - self._asked_at >= ASK_AGAIN_SECONDS:
            self._asked_at = None

    def repeat(self) -> None:
        """Ask once more although this site has joined: the aggregator began again, perhaps from a copy of
        before that.
        """
        self._again = self.joined

    def hurry(self, now: float) -> None:
        """Ask again soon: a newly connected aggregator repeats its Plan, and the broker may have forgotten
        the Join of before.
        """
        asked = self._asked_at
        if asked is not None:
            # An answer to what was sent this moment may be on its way.
            wait = ANSWER_SECONDS if now - asked < 1.0 else 0.0
            self._asked_at = min(asked, now - ASK_AGAIN_SECONDS + wait)

    def due(self, version: int, plan: Plan, now: float) -> list[Message]:
        """Return what to send now: a request to join the run of `plan` with `version`, the newest that is
        here; or, now and again, why this site takes no part.
        """
        if self.declined is not None:
            plan, reason = self.declined
            return self._ask(now, DECLINE_AGAIN_SECONDS, -1, plan, reason[:400])
        if self.joined and not self._again and plan.revision <= self._revision:
            return []
        # Also where the aggregator told of an earlier plan than the one here: it may have lost the later one.
        return self._ask(now, ASK_AGAIN_SECONDS, version, plan, "")

    def take_answer(self, answer: JoinAnswer, version: int, now: float) -> None:
        """Take note of the aggregator's answer, where it is for this site's key and one of its requests."""
        identity = self._identity
        if answer.fingerprint != fingerprint(identity.public_key) or not self._is_awaited(answer.moment):
            return
        self._answered = answer.moment
        if answer.latest is not None:
            if self._moments.surpass(answer.latest):
                log.warning(
                    "the aggregator has heard this site say later things than it remembers: it was restored "
                    "from a backup, and its clock stood in the past; going on after them"
                )
                self._asked_at = None
            return
        self._revision = answer.revision
        if not answer.accepted:
            self.joined = False
            log.error("the aggregator refused %s: %s", identity.site, answer.reason)
            self.observer.note("refused", f"this site: {answer.reason}")
            # It may change its mind: the next request comes after a while.
            self._asked_at = now + DECLINE_AGAIN_SECONDS - ASK_AGAIN_SECONDS
            return
        if not self.joined:
            log.info("joined federation %s at version %d", identity.federation, version)
            self.observer.note("joined", f"admitted by the coordinator, at version {version}")
        self.joined, self._again = True, False

    def _is_awaited(self, moment: Moment) -> bool:
        first = self._asked_first
        asked = first is not None and moments.order(moment) >= moments.order(first)
        return asked and moments.is_later(moment, self._answered)

    def _ask(self, now: float, pause: float, version: int, plan: Plan, cannot: str) -> list[Message]:
        if self._asked_at is not None and now - self._asked_at < pause:
            return []
        self._asked_at = now
        self.asked = self._moments.next()
        self._asked_first = self._asked_first or self.asked
        identity, private = self._identity, self._learner.privacy(plan)
        samples = self._learner.samples if private is None else private.samples
        if plan.secure is not None or cannot:
            # Of a site whose updates are summed, or that takes no part, nobody learns how many images it has.
            samples = 1
        return [
            Join(
                identity.public_key,
                identity.bundle_digest,
                samples,
                version,
                identity.software,
                cannot,
                self.asked,
                plan.revision,
            )
        ]
