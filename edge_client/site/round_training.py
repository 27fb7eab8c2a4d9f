"""Training the round that is due, and handing on its update; or saying that none is sent."""

import logging

from fedmedclip.edge_client.ledger.sources import UpdateSource
from fedmedclip.edge_client.site.abstention import Abstention
from fedmedclip.edge_client.site.application import Application
from fedmedclip.edge_client.site.delivery import Delivery
from fedmedclip.edge_client.site.limits import Limits
from fedmedclip.edge_client.site.permission import Permission
from fedmedclip.edge_client.site.releases import Release
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.run import Run
from fedmedclip.edge_client.site.state import OutgoingUpdate, SiteState, StoredSite
from fedmedclip.edge_client.site.watch import Nobody, Observer
from fedmedclip.protocol.codecs import Codec, delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import change_to_send, compress_within, within_norm
from fedmedclip.protocol.errors import HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.messages import Abstain, Message, Plan

log = logging.getLogger("fedmedclip.site")


class RoundTraining:
    """Trains a run's rounds. `own_codec` replaces the federation's for what this site sends."""

    def __init__(
        self,
        identity: Identity,
        state: SiteState,
        learner: Learner,
        run: Run,
        application: Application,
        delivery: Delivery,
        own_codec: Codec | None,
        permission: Permission,
        limits: Limits,
    ) -> None:
        self._identity = identity
        self._state = state
        self._learner = learner
        self._run = run
        self._application = application
        self._delivery = delivery
        self._own_codec = own_codec
        self._permission = permission
        self._limits = limits
        self._kept_for = ""
        self.kept_back: tuple[int, str] = (0, "")
        """The round of which the operator's policy lets nothing leave at present, and why."""
        self.abstention = Abstention()
        self.observer: Observer = Nobody()

    def train(self, now: float) -> list[Message]:
        """Train the next round when the newest version is here and the last update is settled; then deliver.

        A site that waits for what it missed would train a round that is closed already.
        """
        stored, follower = self._run.stored, self._run.follower
        assert stored is not None
        assert follower is not None
        plan, round_number = stored.plan, follower.version + 1
        if (
            stored.finished
            or plan.paused
            or follower.version < 0
            or follower.behind
            or stored.trained_round >= round_number
            or not self._delivery.may_train(now)
            or not self._run.draw.includes(self._identity.site, plan, round_number)
            or not self._application.knows(plan)
        ):
            return []
        if reason := self._reason_not_to_train(plan, round_number):
            return self._keep_back(round_number, reason, now)
        self.kept_back = (0, "")
        private_specification = self._learner.private_specification(plan)
        private = private_specification.from_bytes(stored.private_head)
        self.observer.trains(round_number)
        try:
            shared, private = self._learner.train(plan, follower.head, private, round_number)
        except (InvalidInputError, HeadError) as error:
            return self._abstain(plan, round_number, str(error), now)
        self.observer.note("trained", f"round {round_number} of {plan.rounds}")
        if self._permission.reason_not_to_train(plan, round_number):
            log.warning("round %d: what was trained is dropped: it was refused meanwhile", round_number)
            return []
        samples, withheld, release = self._to_send(plan)
        private_bytes = private_specification.to_bytes(private)
        if withheld:
            self._state.store_private(round_number, private_bytes)
            self._run.reload()
            log.info("round %d: nothing is sent: %s", round_number, withheld)
            self.observer.note("withheld", f"the update of round {round_number}: {withheld}")
            return self.abstain_from(now)
        self._store_update(stored, round_number, samples, follower.head, shared, private_bytes, release)
        self._run.reload()
        self._delivery.send_at_once()
        return self.deliver(now)

    def _reason_not_to_train(self, plan: Plan, round_number: int) -> str:
        if reason := self._permission.reason_not_to_train(plan, round_number):
            return reason
        # What is not sent anyway is trained for the private head.
        return "" if self.withheld else self._limits.reason_not_to_train(plan.number, round_number)

    def deliver(self, now: float) -> list[Message]:
        """Send the update under way until it is settled, where the operator's limits let it leave.

        One that may not leave yet is kept for as long as its round is open.
        """
        stored, contributions = self._run.stored, self._state.contributions
        assert stored is not None
        if self.withheld:
            return self.abstain_from(now)
        if not self._delivery.is_due(now) or (update := self._state.outgoing_update()) is None:
            return []
        run, round_number = stored.plan.number, update.round_number
        size = self._delivery.bytes_due(update)
        if not contributions.has(run, round_number):
            self._limits.expect(size)
        reason = self._limits.reason_not_to_send(run, round_number, size)
        if not reason:
            contributions.note(run, round_number)
            self.kept_back = (0, "")
            return self._delivery.due(now)
        if round_number <= stored.version and not contributions.has(run, round_number):
            self._delivery.withhold()
            self._run.reload()
        return [] if stored.finished else self._keep_back(stored.version + 1, reason, now)

    def _keep_back(self, round_number: int, reason: str, now: float) -> list[Message]:
        """Say of the open round that nothing of it leaves, for now."""
        self.kept_back = (round_number, reason)
        if reason != self._kept_for:
            log.warning("round %d: nothing is sent: %s", round_number, reason)
            self.observer.note("withheld", f"round {round_number}: {reason}")
            self._kept_for = reason
        return self.abstention.due(round_number, reason, now)

    def _to_send(self, plan: Plan) -> tuple[int, str, Release | None]:
        """Return how many images the new update stands for, why it is not sent, and what it costs."""
        contribution, private = self._learner.contribution(plan), self._learner.privacy(plan)
        if private is None or contribution.withheld:
            return contribution.samples, contribution.withheld, None
        if private.release is None:
            return private.samples, private.withheld or "it is not private", None
        return private.release.images, "", private.release

    @property
    def withheld(self) -> str:
        """Why this site sends no update of the open round; empty where it does, or has made one."""
        stored = self._run.stored
        if stored is None or (reason := self._run.withheld):
            return "" if stored is None else reason
        if self._delivery.under_way or self._state.has_update(stored.version + 1):
            return ""
        private = self._learner.privacy(stored.plan)
        return "" if private is None else private.withheld

    def _store_update(
        self,
        stored: StoredSite,
        round_number: int,
        samples: int,
        before: NamedArrays,
        trained: NamedArrays,
        private: bytes,
        release: Release | None,
    ) -> None:
        """Put into the outbox, compressed, what training has changed of the shared head."""
        plan, specification = stored.plan, self._run.specification(stored.plan)
        residual = None if stored.residual is None else specification.from_bytes(stored.residual)
        delta = change_to_send(plan.method, trained, before, residual, specification)
        if plan.secure is not None:
            wanted = delta
            if residual is not None:
                wanted = {name: array + residual[name] for name, array in delta.items()}
            self._store_for_sum(plan, round_number, samples, wanted, private)
            return
        codec = self._own_codec or delta_codec_named(plan.uplink_codec)
        compressed = compress_within(
            plan.maximum_update_norm, codec, delta, residual, stored.codec_memory, specification
        )
        self._learner.compressed(round_number, compressed)
        self._state.store_update(
            OutgoingUpdate(round_number, samples, compressed.encoded),
            private,
            specification.to_bytes(compressed.residual),
            compressed.memory,
            release,
            self._source(stored, round_number, samples, codec, delta, release),
        )

    def _source(
        self,
        stored: StoredSite,
        round_number: int,
        samples: int,
        codec: Codec,
        delta: NamedArrays,
        release: Release | None,
    ) -> UpdateSource | None:
        """Return what an update is made of, where the state keeps it."""
        if not self._state.replay_rounds:
            return None
        plan = stored.plan
        return UpdateSource(
            plan.number,
            plan.identity,
            round_number,
            plan.method,
            plan.embedding_size,
            self._identity.classes,
            codec.name,
            plan.maximum_update_norm,
            samples,
            None if release is None else release.report,
            self._run.specification(plan).to_bytes(delta),
            stored.residual,
            stored.codec_memory,
            self._identity.software,
        )

    def _store_for_sum(
        self, plan: Plan, round_number: int, samples: int, wanted: NamedArrays, private: bytes
    ) -> None:
        """Put a change into the outbox as it is: how it is encoded is known once its sum begins."""
        whole = self._run.specification(plan).to_bytes(within_norm(wanted, plan.maximum_update_norm))
        self._state.store_update(OutgoingUpdate(round_number, samples, whole), private, whole, b"")

    def abstain_from(self, now: float) -> list[Message]:
        """Say of the open round, once it is trained, that nothing of it is sent."""
        stored = self._run.stored
        assert stored is not None
        round_number = stored.version + 1
        if stored.finished or stored.trained_round != round_number:
            return []
        return self.abstention.due(round_number, self.withheld, now)

    def reopen(self, round_number: int) -> None:
        """Deliver a round once more that is still open: the aggregator may have lost what it had accepted."""
        self.abstention.repeat()
        if not self._run.withheld:
            self._state.reopen(round_number)

    def _abstain(self, plan: Plan, round_number: int, reason: str, now: float) -> list[Message]:
        """Let the others go on without this site; it tries again later, and in the next round."""
        wait = self._delivery.train_later(now)
        log.error("round %d cannot be trained: %s; trying again in %.0f s", round_number, reason, wait)
        if self._learner.privacy(plan) is not None:
            # What a fault says may depend on the images.
            reason = "it cannot be trained; the site's log says why"
        return [Abstain(round_number, reason[:400])]
