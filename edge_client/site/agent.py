"""What a site does with each message: join, follow the head, train, deliver. No broker, no clock, no PyTorch.

    plan -> join -> (head of version v -> train round v + 1 -> deliver until settled) ... -> finished

`receive` and `tick` return the messages to publish; when they return, all that must survive is on disk.
Whatever comes, they return: what is refused is logged and counted, and a run that this site cannot take part
in is declined with the reason. A later run of the same aggregator is followed; the one before is put away.
"""

import logging
from dataclasses import replace

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS, HeadFollower
from fedmedclip.edge_client.site.plans import (
    check_plan,
    first_private_head,
    first_shared_head,
    reason_not_to,
)
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.state import OutgoingUpdate, Sealed, SiteState, StoredSite
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import change_to_send, compress_within
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope
from fedmedclip.protocol.errors import HeadError, InvalidInputError, MessageError
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import (
    Abstain,
    Announcement,
    Block,
    BlockRequest,
    Join,
    JoinAnswer,
    Message,
    Plan,
    Receipt,
    Snapshot,
    State,
    StateRequest,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.site")

# For the answer to a Join, once the aggregator has shown that it is there.
ANSWER_SECONDS = 3.0
RETRY_SECONDS = 60.0
"""How long a site waits before it trains a refused round again, doubling with each refusal."""
LONGEST_RETRY_SECONDS = 3600.0
DECLINE_AGAIN_SECONDS = 600.0
# Carriers of versions that are still on their way: the newest few.
_CARRIERS_KEPT = 4


class SiteAgent:
    """One site's part in one federation. It takes up what `state` holds: a killed site goes on from there.

    `uplink_codec` replaces the federation's for what this site sends; a receiver reads any.
    """

    def __init__(
        self,
        identity: Identity,
        state: SiteState,
        learner: Learner,
        maximum_message_bytes: int,
        uplink_codec: str | None = None,
    ) -> None:
        self._identity = identity
        self._state = state
        self._learner = learner
        self._maximum_message_bytes = maximum_message_bytes
        self._own_codec = None if uplink_codec is None else delta_codec_named(uplink_codec)
        self._early_announcement: bytes | None = None
        self._declined: tuple[Plan, str] | None = None
        self._carriers: dict[int, Sealed] = {}
        self._refusals = 0
        self._train_not_before = 0.0
        self.refused_messages = 0
        self._online = False
        self._joined = False
        self._join_again = False
        self._asked_to_join_at: float | None = None
        self._delivered_at: float | None = None
        self._blocks_sent_of_round: int | None = None
        self._stored = state.load()
        self._follower = None if self._stored is None else self._follow(self._stored)
        if self._stored is not None:
            self._notify_learner(self._stored)

    @property
    def version(self) -> int:
        """The newest version of the global head that is here; -1 before the first."""
        return -1 if self._follower is None else self._follower.version

    @property
    def plan_identity(self) -> bytes:
        """The identity of the plan that is here, for which every message of this site is sealed."""
        if self._declined is not None:
            return self._declined[0].identity
        return NO_IDENTITY if self._stored is None else self._stored.plan.identity

    @property
    def joined(self) -> bool:
        """Whether the aggregator has admitted this site on this connection."""
        return self._joined

    @property
    def finished(self) -> bool:
        """Whether the run is over and its last head is here."""
        return self._stored is not None and self._stored.finished

    def status(self, online: bool) -> Status:
        """Return the site's status: published retained, and left as last will."""
        return Status(fingerprint(self._identity.public_key), online, self.version)

    def owes_status(self, said: Status | None) -> bool:
        """Whether to publish a status after `said`, the last one of this connection, None for none.

        An update shows by its round which version is here: saying it again would be a tenth of all traffic.
        """
        if not self._joined or said == self.status(online=True):
            return False
        stored = self._stored
        shown = stored is not None and not stored.finished and stored.trained_round > stored.version
        return said is None or not shown

    def limit_messages(self, maximum_message_bytes: int) -> None:
        """Cut updates into blocks by what this connection's broker takes."""
        if maximum_message_bytes != self._maximum_message_bytes:
            self._maximum_message_bytes = maximum_message_bytes
            self._blocks_sent_of_round = None

    def connected(self) -> None:
        """Begin a new connection: the next tick joins again and delivers again what is not settled."""
        self._online = True
        self._joined = False
        self._asked_to_join_at = None
        self._delivered_at = None

    def disconnected(self) -> None:
        """Stay silent until the next connection; what was asked or sent meanwhile would pile up unsent."""
        self._online = False

    def receive(self, topic: str, payload: bytes, now: float) -> list[Message]:
        """Handle one message of the aggregator and return the answers to publish on the site's `up` topic.

        A message that is refused is logged and counted.
        """
        try:
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, Plan):
                envelope.verify(envelope.message.aggregator_key, envelope.message.identity)
                return self._take_plan(envelope.message, payload, now)
            if self._stored is None:
                if isinstance(envelope.message, Announcement):
                    self._early_announcement = payload
                return []
            plan = self._stored.plan
            message = envelope.verify(plan.aggregator_key, plan.identity)
            if isinstance(message, Announcement | Snapshot):
                self._carriers[message.version] = Sealed(topic, payload)
                for version in sorted(self._carriers)[:-_CARRIERS_KEPT]:
                    del self._carriers[version]
            return self._handle(message, now)
        except (MessageError, HeadError, InvalidInputError) as error:
            self.refused_messages += 1
            log.warning("refused a message on %s: %s", topic, error)
            return []

    def tick(self, now: float) -> list[Message]:
        """Let time pass: train when there is a round to train, ask and deliver again what is unanswered."""
        if not self._online:
            return []
        if self._declined is not None:
            return self._decline(now)
        if self._stored is None or self._follower is None:
            return []
        if not self._joined:
            return self._join(now)
        asked = self._join(now) if self._join_again else []
        return [*asked, *self._follower.tick(now), *self._deliver(now), *self._train(now)]

    def _take_plan(self, plan: Plan, sealed: bytes, now: float) -> list[Message]:
        """Begin the run of a plan, follow a later run or revision; an earlier plan is refused."""
        stored = self._stored
        if stored is not None and self._declined is None and self._is_of_this_run(plan):
            # The aggregator began again, perhaps from a copy of before this site joined.
            self._join_again = self._joined
        followed = None if stored is None else stored.plan
        declined = None if self._declined is None else self._declined[0]
        known = [kept for kept in (followed, declined) if kept is not None]
        check_plan(plan, known, None if followed is None else followed.aggregator_key, self._identity)
        if stored is not None and plan == stored.plan:
            self._join_again_soon(now)
            return []
        if reason := reason_not_to(plan, self._identity, self._learner):
            if self._declined is None or self._declined[0] != plan:
                log.error("cannot take part in run %d: %s", plan.number, reason)
                self._asked_to_join_at = None
            self._declined = (plan, reason)
            return self._decline(now) if self._online else []
        self._declined = None
        if stored is not None and plan.identity == stored.plan.identity:
            return self._revise(plan, sealed)
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
        self._reload()
        assert self._stored is not None
        self._carriers.clear()
        self._joined, self._asked_to_join_at = False, None
        self._refusals, self._train_not_before = 0, 0.0
        self._follower = self._follow(self._stored)
        if version >= 0:
            self._notify_learner(self._stored)
        if self._early_announcement is None or before is not None:
            return self._join(now)
        early, self._early_announcement = self._early_announcement, None
        return [*self._join(now), *self.receive(topics.head(self._identity.federation), early, now)]

    def _revise(self, plan: Plan, sealed: bytes) -> list[Message]:
        assert self._stored is not None
        was_finished = self._stored.finished
        self._state.revise(plan, sealed)
        self._reload()
        log.info("the run is changed: %d rounds%s", plan.rounds, ", paused" if plan.paused else "")
        if self._stored.finished and not was_finished:
            self._notify_learner(self._stored)
        return []

    def _join(self, now: float) -> list[Message]:
        if self._asked_to_join_at is not None and now - self._asked_to_join_at < ASK_AGAIN_SECONDS:
            return []
        self._asked_to_join_at = now
        return [self._application(self.version, "")]

    def _decline(self, now: float) -> list[Message]:
        """Say, now and again, why this site takes no part in the run that the aggregator has begun."""
        assert self._declined is not None
        if self._asked_to_join_at is not None and now - self._asked_to_join_at < DECLINE_AGAIN_SECONDS:
            return []
        self._asked_to_join_at = now
        return [self._application(-1, self._declined[1][:400])]

    def _application(self, version: int, cannot: str) -> Join:
        identity, samples = self._identity, self._learner.samples
        return Join(identity.public_key, identity.bundle_digest, samples, version, identity.software, cannot)

    def _join_again_soon(self, now: float) -> None:
        """A newly connected aggregator repeats its Plan; the broker may have forgotten the Join of before."""
        asked = self._asked_to_join_at
        if asked is not None:
            # An answer to what was sent this moment may be on its way.
            wait = ANSWER_SECONDS if now - asked < 1.0 else 0.0
            self._asked_to_join_at = min(asked, now - ASK_AGAIN_SECONDS + wait)

    def _handle(self, message: Message, now: float) -> list[Message]:
        assert self._follower is not None
        match message:
            case JoinAnswer():
                return self._take_join_answer(message, now)
            case Announcement() | Snapshot():
                if message.version == self.version:
                    # Of a round that is still open the aggregator may have lost what it had accepted.
                    self._state.reopen(message.version + 1)
                return [*self._follower.take(message, now)]
            case Block():
                return [*self._follower.add_block(message, now)]
            case Receipt():
                return self._take_receipt(message, now)
            case BlockRequest():
                return self._send_blocks(message)
            case StateRequest():
                return self._show_state()
            case _:
                raise MessageError(f"{type(message).__name__} is not for a site")

    def _take_join_answer(self, answer: JoinAnswer, now: float) -> list[Message]:
        if answer.fingerprint != fingerprint(self._identity.public_key):
            return []
        if not answer.accepted:
            log.error("the aggregator refused %s: %s", self._identity.site, answer.reason)
            # It may change its mind: the next request comes after a while.
            self._asked_to_join_at = now + DECLINE_AGAIN_SECONDS - ASK_AGAIN_SECONDS
            return []
        if not self._joined:
            log.info("joined federation %s at version %d", self._identity.federation, self.version)
        self._joined, self._join_again = True, False
        return []

    def _take_receipt(self, receipt: Receipt, now: float) -> list[Message]:
        update = self._state.outgoing_update()
        if update is None or update.round_number != receipt.round_number:
            return []
        again = not receipt.accepted and not receipt.closed
        if again:
            wait = self._train_later(now)
            log.warning(
                "update of round %d was refused: %s; trying again in %.0f s",
                receipt.round_number, receipt.reason, wait,
            )  # fmt: skip
        elif receipt.accepted:
            self._refusals = 0
        else:
            log.info("update of round %d does not count: %s", receipt.round_number, receipt.reason)
        self._state.settle(receipt.round_number, receipt.accepted, again=again)
        self._reload()
        return []

    def _show_state(self) -> list[Message]:
        """Prove to an aggregator that lost state what it had announced."""
        if (data := self._evidence()) is None:
            log.warning(
                "the aggregator asks for version %d, whose announcement is not kept here", self.version
            )
            return []
        payload = refer_to(data, self._maximum_message_bytes)
        log.info("the aggregator lost state: showing it version %d", self.version)
        return [State(payload), *blocks_of(data, payload)]

    def _evidence(self) -> bytes | None:
        found = self._state.evidence()
        if found is None:
            return None
        sealed_plan, carrier, head = found
        return encode_evidence(Evidence(sealed_plan, carrier.topic, carrier.payload, head))

    def _send_blocks(self, request: BlockRequest) -> list[Message]:
        """Send blocks again, of the update under way or of the state that was shown."""
        update = self._state.outgoing_update()
        for data in (None if update is None else update.payload, self._evidence()):
            if data is None:
                continue
            reference = refer_to(data, self._maximum_message_bytes)
            if not isinstance(reference, bytes) and reference.digest == request.object_digest:
                return [*blocks_of(data, reference, request.missing)]
        return []

    def _deliver(self, now: float) -> list[Message]:
        if self._delivered_at is not None and now - self._delivered_at < ASK_AGAIN_SECONDS:
            return []
        if (update := self._state.outgoing_update()) is None:
            return []
        self._delivered_at = now
        payload = refer_to(update.payload, self._maximum_message_bytes)
        message = Update(update.round_number, update.samples, payload)
        # Sent once: the link repeats what the broker has not got, the aggregator asks for what is missing.
        if self._blocks_sent_of_round == update.round_number:
            return [message]
        self._blocks_sent_of_round = update.round_number
        return [message, *blocks_of(update.payload, payload)]

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
            or now < self._train_not_before
            or self._state.outgoing_update() is not None
        ):
            return []
        specification = self._specification(plan)
        private_specification = self._learner.private_specification(plan)
        private = private_specification.from_bytes(stored.private_head)
        try:
            shared, private = self._learner.train(plan, follower.head, private, round_number)
        except (InvalidInputError, HeadError) as error:
            return self._abstain(round_number, str(error), now)
        residual = None if stored.residual is None else specification.from_bytes(stored.residual)
        delta = change_to_send(plan.method, shared, follower.head, residual)
        codec = self._own_codec or delta_codec_named(plan.uplink_codec)
        compressed = compress_within(
            plan.maximum_update_norm, codec, delta, residual, stored.codec_memory, specification
        )
        self._learner.compressed(round_number, compressed)
        self._state.store_update(
            OutgoingUpdate(round_number, self._learner.samples, compressed.encoded),
            private_specification.to_bytes(private),
            specification.to_bytes(compressed.residual),
            compressed.memory,
        )
        self._reload()
        self._delivered_at = None
        return self._deliver(now)

    def _abstain(self, round_number: int, reason: str, now: float) -> list[Message]:
        """Let the others go on without this site; it tries again later, and in the next round."""
        wait = self._train_later(now)
        log.error("round %d cannot be trained: %s; trying again in %.0f s", round_number, reason, wait)
        return [Abstain(round_number, reason[:400])]

    def _train_later(self, now: float) -> float:
        """Put the next training off, for longer with each refusal; return for how many seconds."""
        # The power is bounded: after 1,024 refusals, six weeks of one an hour, a float would overflow.
        wait = min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(self._refusals, 20))
        self._refusals += 1
        self._train_not_before = now + wait
        return wait

    def _follow(self, stored: StoredSite) -> HeadFollower:
        specification = self._specification(stored.plan)
        head = specification.from_bytes(stored.shared_head)
        return HeadFollower(specification, stored.version, head, self._install)

    def _install(self, version: int, head: NamedArrays) -> None:
        """Store a head that the follower has proved, with the signed message that announced it."""
        stored = self._stored
        assert stored is not None
        shared = self._specification(stored.plan).to_bytes(head)
        self._state.install(version, shared, self._carriers.get(version))
        self._stored = replace(stored, version=version, shared_head=shared)
        self._notify_learner(self._stored)

    def _notify_learner(self, stored: StoredSite) -> None:
        specification = self._specification(stored.plan)
        self._learner.installed(
            stored.plan,
            stored.version,
            specification.from_bytes(stored.shared_head),
            self._learner.private_specification(stored.plan).from_bytes(stored.private_head),
            stored.finished,
        )

    def _specification(self, plan: Plan) -> HeadSpecification:
        return shared_head_specification(plan.method, plan.embedding_size, self._identity.classes)

    def _reload(self) -> None:
        self._stored = self._state.load()
