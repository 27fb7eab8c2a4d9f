"""Whether this site may take part in a run, and train a round of it: what its operator has decided."""

import logging
from collections.abc import Callable, Collection

from fedmedclip.edge_client.site.consent import Consents
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.plan_words import AWAITS_CONSENT, MORE_ROUNDS, REFUSED, terms_hash

log = logging.getLogger("fedmedclip.site")

POLICY = "policy"
"""Who decided what `approve = "automatic"` has approved."""


class Permission:
    """What the operator allows by the policy and by decision. `coordinator_keys` are those of the roster."""

    def __init__(
        self,
        consents: Consents,
        policy: PolicySettings,
        coordinator_keys: Callable[[], Collection[bytes]] = tuple,
    ) -> None:
        self._consents = consents
        self._policy = policy
        self._coordinator_keys = coordinator_keys
        self._seen = consents.changes()
        self._asked = ""

    def changed(self) -> bool:
        """Whether anything was decided since this was asked last; other writes to the database look alike."""
        before, self._seen = self._seen, self._consents.changes()
        return before != self._seen

    def ask(self, plan: Plan) -> str:
        """Return why this site may not take part in a run; empty where it may. The operator is asked.

        A run that has more rounds than were approved is taken part in: see `reason_not_to_train`.
        """
        self._consents.bind_advance(plan)
        standing = self._consents.standing(plan, self._coordinator_keys())
        refused = self._consents.refusal(plan)
        # What its operator has refused no policy approves: else a plan that is changed a little would pass.
        if standing in ("undecided", "more rounds") and refused is None and self._is_automatic:
            self._consents.decide(plan, True, POLICY, 'approve = "automatic"')
            standing = "approved"
        if standing in ("undecided", "more rounds"):
            self._consents.note_asked(plan)
            self._tell_operator(plan, standing == "more rounds")
        else:
            self._consents.note_heard(plan)
        if standing == "refused":
            return f"{REFUSED}: {refused}" if refused else REFUSED
        return AWAITS_CONSENT if standing == "undecided" else ""

    def reason_not_to_train(self, plan: Plan, round_number: int) -> str:
        """Return why a round of a run may not be trained, or sent once it is; empty where it may."""
        if self._consents.covers(plan, round_number, self._coordinator_keys()):
            return ""
        approved = self._consents.approved_rounds(plan)
        if self._consents.standing(plan, self._coordinator_keys()) == "more rounds":
            return f"{MORE_ROUNDS} {approved} rounds; its operator has not approved more yet"
        return AWAITS_CONSENT

    @property
    def _is_automatic(self) -> bool:
        return self._policy.approve == "automatic"

    def _tell_operator(self, plan: Plan, more_rounds: bool) -> None:
        """Say in the log what to type, once for each plan."""
        terms = terms_hash(plan)
        if terms == self._asked:
            return
        self._asked = terms
        log.warning(
            "run %d %s: fedmedclip site plan --config FILE shows the plan (%s); then fedmedclip site approve,"
            " or refuse, with the same --config",
            plan.number,
            f"has {plan.rounds} rounds, more than were approved" if more_rounds else "awaits your approval",
            terms[:16],
        )
