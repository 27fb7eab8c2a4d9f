"""The run that a site is in: its plan, its heads as they are stored, and who trains which round of it."""

import logging
from dataclasses import replace

from fedmedclip.edge_client.site.delivery import Delivery
from fedmedclip.edge_client.site.draw import Draw
from fedmedclip.edge_client.site.head_follower import HeadFollower
from fedmedclip.edge_client.site.plans import first_private_head, first_shared_head, reason_of_bundle
from fedmedclip.edge_client.site.proof import Proof
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.state import SiteState, StoredSite
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import Plan

log = logging.getLogger("fedmedclip.site")


class Run:
    """The run as `state` holds it, and the follower of its head. The learner is told of each version."""

    def __init__(
        self, identity: Identity, state: SiteState, learner: Learner, delivery: Delivery, proof: Proof
    ) -> None:
        self._identity = identity
        self._state = state
        self._learner = learner
        self._delivery = delivery
        self._proof = proof
        self.draw = Draw()
        self.left: tuple[Plan, str] | None = None
        """The plan of a stored run that cannot go on here, and why; its key counts all the same."""
        self._before: StoredSite | None = None
        self.stored = self._usable(state.load())
        """The run as it is on disk; None before the first that can be gone on with."""
        self.follower = None if self.stored is None else self._follow(self.stored)
        """Follows the global head of the run; None before the first."""
        if self.stored is not None:
            if not state.class_names(self.stored.plan.number):
                state.name_classes(self.stored.plan.number, identity.class_names)
            self._notify_learner(self.stored)

    @property
    def plan(self) -> Plan | None:
        """The plan that is followed; None before the first run."""
        return None if self.stored is None else self.stored.plan

    @property
    def withheld(self) -> str:
        """Why this site sends no updates in the run that it is in; empty when it does."""
        return "" if self.plan is None else self._learner.contribution(self.plan).withheld

    def _usable(self, stored: StoredSite | None) -> StoredSite | None:
        """Return what was stored, or None when it is of another bundle, or has other arrays than here.

        This site then declines that run, and begins the next one; what was stored is kept beside it.
        """
        if stored is None:
            return None
        if stored.plan.bundle_digest != self._identity.bundle_digest:
            self._before = stored
            self.left = (stored.plan, reason_of_bundle(stored.plan, self._identity))
            log.info("run %d was with another bundle: waiting for the next", stored.plan.number)
            return None
        kinds = [("private", stored.private_head, self._learner.private_specification(stored.plan))]
        # One that is damaged, or was never here, is asked for, whatever its bytes are.
        if stored.version >= 0:
            kinds.append(("shared", stored.shared_head, self.specification(stored.plan)))
        for kind, head, specification in kinds:
            if len(head) != 4 * specification.size:
                reason = (
                    f"the run was begun with another version of method {stored.plan.method!r}, whose {kind} "
                    f"head has {len(head) // 4} values and here {specification.size}; finish it with the "
                    "fedmedclip that began it, or the coordinator begins the next run (fedmedclip aggregator "
                    "--new-run)"
                )
                log.warning("run %d cannot go on here: %s", stored.plan.number, reason)
                self.left = (stored.plan, reason)
                return None
        return stored

    def specification(self, plan: Plan) -> HeadSpecification:
        """Return the arrays of the global head in the run of a plan."""
        return shared_head_specification(plan.method, plan.embedding_size, self._identity.classes)

    def reload(self) -> None:
        """Take up what was stored."""
        self.stored = self._state.load()

    def store(self, plan: Plan, sealed: bytes) -> None:
        """Store the beginning of another run; the one before is kept beside it."""
        before = self.stored or self._before
        specification, names = self.specification(plan), self._identity.class_names
        names_before = () if before is None else self._state.class_names(before.plan.number)
        private = first_private_head(plan, before, self._learner, names, names_before)
        version, shared = first_shared_head(plan, specification, before, self._identity.classes)
        self._state.begin(plan, specification.to_bytes(shared), private, version, sealed)
        self._state.name_classes(plan.number, names)
        if before is not None:
            log.info(
                "run %d begins; run %d, which ended here at version %d, is kept",
                plan.number, before.plan.number, before.version,
            )  # fmt: skip

    def begin(self) -> None:
        """Begin the run that was stored."""
        self.reload()
        assert self.stored is not None
        self._delivery.begin_run()
        self._proof.begin_run()
        self.draw = Draw()
        self.follower = self._follow(self.stored)
        if self.stored.version >= 0:
            self._notify_learner(self.stored)

    def revise(self, plan: Plan, sealed: bytes) -> None:
        """Follow a revision of the plan."""
        assert self.stored is not None
        was_finished = self.stored.finished
        self._state.revise(plan, sealed)
        self.reload()
        log.info("the run is changed: %d rounds%s", plan.rounds, ", paused" if plan.paused else "")
        if self.stored.finished and not was_finished:
            self._notify_learner(self.stored)

    def _follow(self, stored: StoredSite) -> HeadFollower:
        specification = self.specification(stored.plan)
        return HeadFollower(specification, stored.version, _shared_head(stored, specification), self._install)

    def _install(self, version: int, head: NamedArrays) -> None:
        """Store a head that the follower has proved, with the signed message that announced it."""
        stored = self.stored
        assert stored is not None
        shared = self.specification(stored.plan).to_bytes(head)
        self._state.install(version, shared, self._proof.carrier(version))
        self.stored = replace(stored, version=version, shared_head=shared)
        self._delivery.hurry(version)
        self._notify_learner(self.stored)

    def _notify_learner(self, stored: StoredSite) -> None:
        specification = self.specification(stored.plan)
        self._learner.installed(
            stored.plan,
            stored.version,
            _shared_head(stored, specification),
            self._learner.private_specification(stored.plan).from_bytes(stored.private_head),
            stored.finished,
        )


def _shared_head(stored: StoredSite, specification: HeadSpecification) -> NamedArrays:
    """Return the shared head that is here; zeros where it has to be asked for, whatever its bytes are."""
    here = stored.shared_head if stored.version >= 0 else bytes(4 * specification.size)
    return specification.from_bytes(here)
