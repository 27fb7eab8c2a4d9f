"""What a site does with each message: join, follow the head, train, deliver. No broker, no clock, no PyTorch.

    plan -> join -> (head of version v -> train round v + 1 -> deliver until settled) ... -> finished

`receive` and `tick` return the messages to publish; when they return, all that must survive is on disk.
"""

import logging
from dataclasses import dataclass, replace
from typing import Protocol

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS, HeadFollower
from fedmedclip.edge_client.site.state import OutgoingUpdate, SiteState, StoredSite
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import Compressed, change_to_send, compress
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import (
    Announcement,
    Block,
    BlockRequest,
    Join,
    JoinAnswer,
    Message,
    Plan,
    Receipt,
    Snapshot,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.site")


class Learner(Protocol):
    """What the site does with its own images, which the agent never sees."""

    samples: int

    def private_specification(self, plan: Plan) -> HeadSpecification:
        """Return the specification of the private head. Raises InvalidInputError for a plan it cannot do."""

    def initial_private_head(self, plan: Plan) -> NamedArrays:
        """Return the private head before the first round, drawn from the plan's seed and the site's name."""

    def train(
        self, plan: Plan, shared: NamedArrays, private: NamedArrays, round_number: int
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return the shared and the private head after one local round. Deterministic in its arguments."""

    def compressed(self, round_number: int, compressed: Compressed) -> None:
        """Take notice of what the round's update leaves to later rounds."""

    def installed(
        self, plan: Plan, version: int, shared: NamedArrays, private: NamedArrays, finished: bool
    ) -> None:
        """Take notice of a new version: evaluate it, keep it for prediction. May come twice for a version."""


@dataclass(frozen=True)
class Identity:
    """Who the site is. With `aggregator_key` None, the first aggregator heard is trusted and pinned.

    `classes` is the number of classes of its bundle, for methods whose shared head has a row for each.
    """

    federation: str
    site: str
    public_key: bytes
    bundle_digest: bytes
    aggregator_key: bytes | None
    classes: int | None = None


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
        self._online = False
        self._joined = False
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
        return NO_IDENTITY if self._stored is None else self._stored.plan.identity

    @property
    def joined(self) -> bool:
        """Whether the aggregator has admitted this site on this connection."""
        return self._joined

    @property
    def finished(self) -> bool:
        """Whether the federation is over and its last head is here."""
        return self._stored is not None and self._stored.finished

    def status(self, online: bool) -> Status:
        """Return the site's status: published retained, and left as last will."""
        return Status(fingerprint(self._identity.public_key), online, self.version)

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

        A message that is refused is logged. InvalidInputError means that this site cannot take part.
        """
        try:
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, Plan):
                envelope.verify(envelope.message.aggregator_key, envelope.message.identity)
                return self._take_plan(envelope.message, now)
            if self._stored is None:
                if isinstance(envelope.message, Announcement):
                    self._early_announcement = payload
                return []
            plan = self._stored.plan
            return self._handle(envelope.verify(plan.aggregator_key, plan.identity), now)
        except MessageError as error:
            log.warning("refused a message on %s: %s", topic, error)
            return []

    def tick(self, now: float) -> list[Message]:
        """Let time pass: train when there is a round to train, ask and deliver again what is unanswered."""
        if self._stored is None or self._follower is None:
            return []
        if not self._online:
            return []
        if not self._joined:
            return self._join(now)
        return [*self._follower.tick(now), *self._deliver(now), *self._train(now)]

    def _take_plan(self, plan: Plan, now: float) -> list[Message]:
        self._check_plan(plan)
        if self._stored is not None:
            return []
        specification = self._specification(plan)
        shared = initial_shared_head(plan.method, plan.embedding_size, plan.seed, self._identity.classes)
        private = self._learner.initial_private_head(plan)
        private_bytes = self._learner.private_specification(plan).to_bytes(private)
        self._state.begin(plan, specification.to_bytes(shared), private_bytes)
        self._reload()
        assert self._stored is not None
        self._follower = self._follow(self._stored)
        self._notify_learner(self._stored)
        if self._early_announcement is None:
            return self._join(now)
        early, self._early_announcement = self._early_announcement, None
        return [*self._join(now), *self.receive(topics.head(self._identity.federation), early, now)]

    def _join(self, now: float) -> list[Message]:
        if self._asked_to_join_at is not None and now - self._asked_to_join_at < ASK_AGAIN_SECONDS:
            return []
        self._asked_to_join_at = now
        return [Join(self._identity.public_key, self._identity.bundle_digest, self._learner.samples)]

    def _check_plan(self, plan: Plan) -> None:
        identity = self._identity
        pinned = identity.aggregator_key if self._stored is None else self._stored.plan.aggregator_key
        if pinned is not None and plan.aggregator_key != pinned:
            raise InvalidInputError(
                f"the aggregator of federation {identity.federation!r} has key {plan.aggregator_key.hex()}, "
                f"this site trusts {pinned.hex()}; ask the coordinating centre which is right"
            )
        if self._stored is not None and plan != self._stored.plan:
            raise InvalidInputError(
                f"the aggregator has begun a new federation {identity.federation!r}, this site's state is of "
                "the one before; move the state folder away to take part in the new one"
            )
        if plan.bundle_digest != identity.bundle_digest:
            raise InvalidInputError(
                f"this site's bundle has digest {identity.bundle_digest.hex()[:16]}, the federation uses "
                f"{plan.bundle_digest.hex()[:16]}; copy the federation's bundle"
            )
        delta_codec_named(plan.uplink_codec)

    def _handle(self, message: Message, now: float) -> list[Message]:
        assert self._follower is not None
        match message:
            case JoinAnswer():
                return self._take_join_answer(message)
            case Announcement() | Snapshot():
                return [*self._follower.take(message, now)]
            case Block():
                return [*self._follower.add_block(message, now)]
            case Receipt():
                return self._take_receipt(message)
            case BlockRequest():
                return self._send_blocks(message)
            case _:
                raise MessageError(f"{type(message).__name__} is not for a site")

    def _take_join_answer(self, answer: JoinAnswer) -> list[Message]:
        if answer.fingerprint != fingerprint(self._identity.public_key):
            return []
        if not answer.accepted:
            raise InvalidInputError(f"the aggregator refused {self._identity.site!r}: {answer.reason}")
        if not self._joined:
            log.info("joined federation %s at version %d", self._identity.federation, self.version)
        self._joined = True
        return []

    def _take_receipt(self, receipt: Receipt) -> list[Message]:
        if not receipt.accepted:
            log.warning("update of round %d was refused: %s", receipt.round_number, receipt.reason)
        self._state.settle(receipt.round_number, receipt.accepted)
        self._reload()
        return []

    def _send_blocks(self, request: BlockRequest) -> list[Message]:
        if (update := self._state.outgoing_update()) is None:
            return []
        reference = refer_to(update.payload, self._maximum_message_bytes)
        if isinstance(reference, bytes) or reference.digest != request.object_digest:
            return []
        return [*blocks_of(update.payload, reference, request.missing)]

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
        round_number = follower.version + 1
        if (
            stored.finished
            or follower.behind
            or stored.trained_round >= round_number
            or self._state.outgoing_update() is not None
        ):
            return []
        plan = stored.plan
        specification = self._specification(plan)
        private_specification = self._learner.private_specification(plan)
        private = private_specification.from_bytes(stored.private_head)
        shared, private = self._learner.train(plan, follower.head, private, round_number)
        residual = None if stored.residual is None else specification.from_bytes(stored.residual)
        delta = change_to_send(plan.method, shared, follower.head, residual)
        codec = self._own_codec or delta_codec_named(plan.uplink_codec)
        compressed = compress(codec, delta, residual, stored.codec_memory, specification)
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

    def _follow(self, stored: StoredSite) -> HeadFollower:
        specification = self._specification(stored.plan)
        head = specification.from_bytes(stored.shared_head)
        return HeadFollower(specification, stored.version, head, self._install)

    def _install(self, version: int, head: NamedArrays, finished: bool) -> None:
        stored = self._stored
        assert stored is not None
        specification = self._specification(stored.plan)
        installed = replace(
            stored, version=version, shared_head=specification.to_bytes(head), finished=finished
        )
        if installed == stored:
            return
        self._state.install(version, installed.shared_head, finished)
        self._stored = installed
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
