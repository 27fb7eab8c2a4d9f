"""What a site does with each message: join, follow the head, train, deliver. No broker, no clock, no PyTorch.

    plan -> join -> admitted -> (head of version v -> train round v + 1 -> deliver until settled) -> finished

`receive` and `tick` return the messages to publish; when they return, all that must survive is on disk.
Whatever comes, they return: what is refused is logged and counted, and a run that this site cannot take part
in is declined with the reason. A later run of the same aggregator is followed, and the one before put away,
once the aggregator has admitted this site to it: a plan may be an old copy, the answer to a new request not.
"""

import logging
from dataclasses import replace

from fedmedclip.edge_client.site.abstention import Abstention
from fedmedclip.edge_client.site.application import Application
from fedmedclip.edge_client.site.delivery import Delivery
from fedmedclip.edge_client.site.head_follower import HeadFollower
from fedmedclip.edge_client.site.membership import Membership
from fedmedclip.edge_client.site.plans import (
    check_plan,
    first_private_head,
    first_shared_head,
    reason_not_to,
)
from fedmedclip.edge_client.site.proof import Proof
from fedmedclip.edge_client.site.rations import LOGGED_AT_ONCE, SECONDS_PER_LOGGED, Rations
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.state import OutgoingUpdate, Sealed, SiteState, StoredSite
from fedmedclip.protocol import topics
from fedmedclip.protocol.allowance import Allowance
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import change_to_send, compress_within
from fedmedclip.protocol.envelope import NO_IDENTITY, Envelope, open_envelope
from fedmedclip.protocol.errors import HeadError, InvalidInputError, MessageError, OtherVersionError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import (
    Abstain,
    Announcement,
    Block,
    BlockRequest,
    JoinAnswer,
    Message,
    Plan,
    Receipt,
    Renewal,
    RosterNotice,
    Snapshot,
    StateRequest,
    Status,
)
from fedmedclip.protocol.moments import Moments
from fedmedclip.protocol.participation import LOTS, lot_of
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.site")


class SiteAgent:
    """One site's part in one federation. It takes up what `state` holds: a killed site goes on from there.

    `uplink_codec` replaces the federation's for what this site sends; a receiver reads any. Where the
    federation has a roster, `membership` follows it and renews this site's certificate.
    """

    def __init__(
        self,
        identity: Identity,
        state: SiteState,
        learner: Learner,
        maximum_message_bytes: int,
        uplink_codec: str | None = None,
        moments: Moments | None = None,
        membership: Membership | None = None,
    ) -> None:
        self._identity = identity
        self._membership = membership
        self._state = state
        self._learner = learner
        self._maximum_message_bytes = maximum_message_bytes
        self._own_codec = None if uplink_codec is None else delta_codec_named(uplink_codec)
        self._early_announcement: bytes | None = None
        # A later plan, as it came, which the aggregator has not confirmed yet.
        self._candidate: tuple[Plan, bytes] | None = None
        self.moments = moments or Moments(state.session(), state.begin_session)
        self._application = Application(identity, learner, self.moments)
        self._delivery = Delivery(state, maximum_message_bytes)
        self._proof = Proof(state)
        self._rations = Rations()
        self._complaints = Allowance(LOGGED_AT_ONCE, SECONDS_PER_LOGGED, 0.0)
        self._abstention = Abstention()
        self.refused_messages = 0
        self._has_other_version = False
        self._online = False
        # Of which version was announced whose lots are drawn.
        self._draw: tuple[int, int] = (-1, 0)
        self._stored = state.load()
        self._follower = None if self._stored is None else self._follow(self._stored)
        if self._stored is not None:
            self._notify_learner(self._stored)

    @property
    def version(self) -> int:
        """The newest version of the global head that is here; -1 before the first."""
        return -1 if self._follower is None or self._candidate is not None else self._follower.version

    @property
    def plan_identity(self) -> bytes:
        """The identity of the plan that is here, for which every message of this site is sealed."""
        plan = self._newest_plan
        return NO_IDENTITY if plan is None else plan.identity

    @property
    def _newest_plan(self) -> Plan | None:
        """The latest plan that is known: followed, declined, or not confirmed yet."""
        if self._application.declined is not None:
            return self._application.declined[0]
        if self._candidate is not None:
            return self._candidate[0]
        return None if self._stored is None else self._stored.plan

    @property
    def joined(self) -> bool:
        """Whether the aggregator has admitted this site on this connection."""
        return self._application.joined

    @property
    def finished(self) -> bool:
        """Whether the run is over, its last head is here, and no later one was seen."""
        later = self._application.declined is not None or self._candidate is not None
        return not later and self._stored is not None and self._stored.finished

    def status(self, online: bool) -> Status:
        """Return the site's status as of now, which is published retained."""
        return Status(fingerprint(self._identity.public_key), online, self.version, self.moments.next())

    def owes_status(self, said: Status | None) -> bool:
        """Whether to publish a status after `said`, the last one of this connection, None for none.

        An update shows by its round which version is here: saying it again would be a tenth of all traffic.
        """
        if self._has_other_version and not self.joined:
            # All that such a site can say to an aggregator of another version: who it is, and what it speaks.
            return said is None
        if not self.joined or (said is not None and said.version == self.version):
            return False
        stored = self._stored
        shown = stored is not None and not stored.finished and stored.trained_round > stored.version
        return said is None or not shown or bool(self._withheld)

    def limit_messages(self, maximum_message_bytes: int) -> None:
        """Cut updates into blocks by what this connection's broker takes."""
        self._maximum_message_bytes = maximum_message_bytes
        self._delivery.limit_messages(maximum_message_bytes)

    def connected(self) -> None:
        """Begin a new connection: the next tick joins again and delivers again what is not settled."""
        self._online = True
        self._application.begin()
        self._delivery.send_at_once()
        self._abstention.repeat()
        if self._withheld:
            self._delivery.withhold()

    def disconnected(self) -> None:
        """Stay silent until the next connection; what was asked or sent meanwhile would pile up unsent."""
        self._online = False

    def receive(self, topic: str, payload: bytes, now: float) -> list[Message]:
        """Handle one message of the aggregator and return the answers to publish on the site's `up` topic.

        A message that is refused is logged and counted.
        """
        try:
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, RosterNotice):
                return self._take_roster(envelope, envelope.message, now)
            if isinstance(envelope.message, Plan):
                envelope.verify(envelope.message.aggregator_key, envelope.message.identity)
                return self._take_plan(envelope.message, payload, now)
            if self._candidate is not None:
                return self._await_admission(*self._candidate, envelope, payload, now)
            if self._stored is None:
                if isinstance(envelope.message, Announcement):
                    self._early_announcement = payload
                return []
            if not self._wants(envelope.message):
                return []
            plan = self._stored.plan
            message = envelope.verify(self._key_of(plan), plan.identity)
            if isinstance(message, Announcement | Snapshot):
                self._proof.keep(message.version, Sealed(topic, payload))
                self._note_draw(message)
            return self._handle(message, now)
        except (MessageError, HeadError, InvalidInputError) as error:
            self.refused_messages += 1
            self._has_other_version = isinstance(error, OtherVersionError)
            self._complain(topic, error, now)
            return []

    def _key_of(self, plan: Plan) -> bytes:
        """Return the key that signs what is said in a run: by the roster, where there is one, today's."""
        return plan.aggregator_key if self._membership is None else self._membership.coordinator_keys[-1]

    def _take_roster(self, envelope: Envelope, notice: RosterNotice, now: float) -> list[Message]:
        if self._membership is None:
            return []
        self._membership.take(envelope, notice)
        return self._look_at_roster(now)

    def _look_at_roster(self, now: float) -> list[Message]:
        """Ask once more to be let in, where the roster says that this site may."""
        if self._membership is not None and self._membership.admitted and not self.joined:
            self._application.hurry(now)
        return []

    def _complain(self, topic: str, error: Exception, now: float) -> None:
        """Log what was refused, as long as that is not so often that the log itself would be flooded."""
        if self._complaints.take(now):
            log.warning("refused a message on %s: %s", topic, error)
            if self._complaints.left < 1:
                log.warning("somebody floods this site; more of what it refuses is counted and not logged")

    def _wants(self, message: Message) -> bool:
        """Whether a message is worth a look at who signed it: a block of nothing that is expected is not."""
        assert self._follower is not None
        if not isinstance(message, Block) or self._follower.expects(message):
            return True
        return self._membership is not None and self._membership.expects(message)

    def tick(self, now: float) -> list[Message]:
        """Let time pass: train when there is a round to train, ask and deliver again what is unanswered."""
        plan, waits = self._newest_plan, self._application.declined or self._candidate
        if not self._online or plan is None:
            return []
        if not self._application.knows(plan):
            # The broker gave this site an old copy; whoever asks is told the newest.
            self._application.repeat()
        asked = self._application.due(self.version, plan.revision, now)
        if waits is not None or not self.joined:
            return asked
        assert self._follower is not None
        heads = self._follower.tick(now)
        if heads or self._delivery.unanswered(now):
            # Whoever does not answer may be an aggregator that has lost this member.
            self._application.repeat()
        kept = [] if self._membership is None else self._membership.due(now)
        sent = self._abstain_from(now) if self._withheld else self._delivery.due(now)
        return [*asked, *heads, *kept, *sent, *self._train(now)]

    def _take_plan(self, plan: Plan, sealed: bytes, now: float) -> list[Message]:
        """Take part in the run of a plan, follow a later run or revision; an earlier plan is refused."""
        stored, declined, candidate = self._stored, self._application.declined, self._candidate
        if stored is not None and declined is None and self._is_of_this_run(plan):
            self._application.repeat()
        followed = None if stored is None else stored.plan
        known = [followed, declined and declined[0], candidate and candidate[0]]
        check_plan(
            plan,
            [kept for kept in known if kept is not None],
            None if followed is None else followed.aggregator_key,
            self._identity,
            () if self._membership is None else self._membership.coordinator_keys,
        )
        if plan == self._newest_plan and declined is None:
            self._application.hurry(now)
            if candidate is None:
                self._state.keep_sealed(sealed)
            return []
        if reason := reason_not_to(plan, self._identity, self._learner):
            self._application.decline(plan, reason)
            return self._ask(now) if self._online else []
        self._application.declined = None
        if stored is not None and plan.identity == stored.plan.identity:
            self._candidate = None
            return self._revise(plan, sealed)
        if candidate is None or candidate[0].identity != plan.identity:
            self._application.begin()
        self._candidate = (plan, sealed)
        return self._ask(now)

    def _ask(self, now: float) -> list[Message]:
        plan = self._newest_plan
        assert plan is not None
        return self._application.due(self.version, plan.revision, now)

    def _await_admission(
        self, plan: Plan, sealed: bytes, envelope: Envelope, payload: bytes, now: float
    ) -> list[Message]:
        """Begin the run of a plan with the answer that admits this site to it: only now it is no old copy."""
        if isinstance(envelope.message, Announcement):
            self._early_announcement = payload
        if not isinstance(envelope.message, JoinAnswer):
            return []
        envelope.verify(self._key_of(plan), plan.identity)
        self._application.take_answer(envelope.message, self.version, now)
        if not self.joined:
            return []
        return self._begin(plan, sealed, now)

    def _is_of_this_run(self, plan: Plan) -> bool:
        assert self._stored is not None
        known = self._stored.plan
        return (plan.identity, plan.aggregator_key) == (known.identity, known.aggregator_key)

    def _begin(self, plan: Plan, sealed: bytes, now: float) -> list[Message]:
        before = self._stored
        specification = self._specification(plan)
        private = first_private_head(plan, before, self._learner)
        version, shared = first_shared_head(plan, specification, before, self._identity.classes)
        self._state.begin(plan, specification.to_bytes(shared), private, version, sealed)
        if before is not None:
            log.info(
                "run %d begins; run %d, which ended here at version %d, is kept",
                plan.number, before.plan.number, before.version,
            )  # fmt: skip
        self._candidate = None
        self._reload()
        assert self._stored is not None
        self._delivery.begin_run()
        self._proof.begin_run()
        self._draw = (-1, 0)
        self._follower = self._follow(self._stored)
        if version >= 0:
            self._notify_learner(self._stored)
        if self._early_announcement is None:
            return []
        early, self._early_announcement = self._early_announcement, None
        return self.receive(topics.head(self._identity.federation), early, now)

    def _revise(self, plan: Plan, sealed: bytes) -> list[Message]:
        assert self._stored is not None
        was_finished = self._stored.finished
        self._state.revise(plan, sealed)
        self._reload()
        log.info("the run is changed: %d rounds%s", plan.rounds, ", paused" if plan.paused else "")
        if self._stored.finished and not was_finished:
            self._notify_learner(self._stored)
        return []

    def _handle(self, message: Message, now: float) -> list[Message]:
        assert self._follower is not None
        match message:
            case JoinAnswer():
                self._application.take_answer(message, self.version, now)
            case Announcement() | Snapshot():
                if message.version == self.version:
                    # Of a round that is still open the aggregator may have lost what it had accepted.
                    self._reopen(message.version + 1)
                return [*self._follower.take(message, now)]
            case Block():
                if self._membership is not None and self._membership.add_block(message):
                    return self._look_at_roster(now)
                return [*self._follower.add_block(message, now)]
            case Renewal() if self._membership is not None:
                self._membership.take_renewal(message)
            case Receipt():
                if self._delivery.take_receipt(message, now):
                    self._reload()
                    if not message.accepted and not message.closed:
                        # Perhaps this site is no member any more: the answer to a Join says so.
                        self._application.repeat()
            case BlockRequest() | StateRequest() if not self._rations.allow(message, now):
                return []
            case BlockRequest():
                proof = self._proof.blocks(message, self._maximum_message_bytes)
                return [*self._delivery.blocks(message), *proof]
            case StateRequest():
                return self._proof.show(self.version, self._maximum_message_bytes)
            case _:
                raise MessageError(f"{type(message).__name__} is not for a site")
        return []

    def _reopen(self, round_number: int) -> None:
        self._abstention.repeat()
        if not self._withheld:
            self._state.reopen(round_number)

    @property
    def _withheld(self) -> str:
        """Why this site sends no updates in the run that it is in; empty when it does."""
        stored = self._stored
        return "" if stored is None else self._learner.contribution(stored.plan).withheld

    def _note_draw(self, carrier: Announcement | Snapshot) -> None:
        """Take note of who trains from a version; more may be drawn later, none is called off."""
        version, below = self._draw
        announced = LOTS if carrier.drawn_below is None else carrier.drawn_below
        if carrier.version > version:
            self._draw = carrier.version, announced
        elif carrier.version == version:
            self._draw = version, max(below, announced)

    def _drawn(self, plan: Plan, round_number: int) -> bool:
        """Whether this site takes part in a round; not before its beginning was announced."""
        version, below = self._draw
        if version != round_number - 1 or below == 0:
            return False
        return below == LOTS or lot_of(plan.seed, self._identity.site, round_number) < below

    def _train(self, now: float) -> list[Message]:
        """Train the next round when the newest version is here and the last update is settled; then deliver.

        A site that waits for what it missed would train a round that is closed already.
        """
        stored, follower = self._stored, self._follower
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
            or not self._drawn(plan, round_number)
            or not self._application.knows(plan)
        ):
            return []
        specification = self._specification(plan)
        private_specification = self._learner.private_specification(plan)
        private = private_specification.from_bytes(stored.private_head)
        try:
            shared, private = self._learner.train(plan, follower.head, private, round_number)
        except (InvalidInputError, HeadError) as error:
            return self._abstain(round_number, str(error), now)
        contribution = self._learner.contribution(plan)
        if contribution.withheld:
            self._state.store_private(round_number, private_specification.to_bytes(private))
            self._reload()
            log.info("round %d: nothing is sent: %s", round_number, contribution.withheld)
            return self._abstain_from(now)
        residual = None if stored.residual is None else specification.from_bytes(stored.residual)
        delta = change_to_send(plan.method, shared, follower.head, residual)
        codec = self._own_codec or delta_codec_named(plan.uplink_codec)
        compressed = compress_within(
            plan.maximum_update_norm, codec, delta, residual, stored.codec_memory, specification
        )
        self._learner.compressed(round_number, compressed)
        self._state.store_update(
            OutgoingUpdate(round_number, contribution.samples, compressed.encoded),
            private_specification.to_bytes(private),
            specification.to_bytes(compressed.residual),
            compressed.memory,
        )
        self._reload()
        self._delivery.send_at_once()
        return self._delivery.due(now)

    def _abstain_from(self, now: float) -> list[Message]:
        """Say of the open round, once it is trained, that nothing of it is sent."""
        stored = self._stored
        assert stored is not None
        round_number = stored.version + 1
        if stored.finished or stored.trained_round != round_number:
            return []
        return self._abstention.due(round_number, self._withheld, now)

    def _abstain(self, round_number: int, reason: str, now: float) -> list[Message]:
        """Let the others go on without this site; it tries again later, and in the next round."""
        wait = self._delivery.train_later(now)
        log.error("round %d cannot be trained: %s; trying again in %.0f s", round_number, reason, wait)
        return [Abstain(round_number, reason[:400])]

    def _follow(self, stored: StoredSite) -> HeadFollower:
        specification = self._specification(stored.plan)
        return HeadFollower(specification, stored.version, _shared_head(stored, specification), self._install)

    def _install(self, version: int, head: NamedArrays) -> None:
        """Store a head that the follower has proved, with the signed message that announced it."""
        stored = self._stored
        assert stored is not None
        shared = self._specification(stored.plan).to_bytes(head)
        self._state.install(version, shared, self._proof.carrier(version))
        self._stored = replace(stored, version=version, shared_head=shared)
        self._delivery.hurry(version)
        self._notify_learner(self._stored)

    def _notify_learner(self, stored: StoredSite) -> None:
        specification = self._specification(stored.plan)
        self._learner.installed(
            stored.plan,
            stored.version,
            _shared_head(stored, specification),
            self._learner.private_specification(stored.plan).from_bytes(stored.private_head),
            stored.finished,
        )

    def _specification(self, plan: Plan) -> HeadSpecification:
        return shared_head_specification(plan.method, plan.embedding_size, self._identity.classes)

    def _reload(self) -> None:
        self._stored = self._state.load()


def _shared_head(stored: StoredSite, specification: HeadSpecification) -> NamedArrays:
    """Return the shared head that is here; zeros where it has to be asked for, whatever its bytes are."""
    here = stored.shared_head if stored.version >= 0 else bytes(4 * specification.size)
    return specification.from_bytes(here)
