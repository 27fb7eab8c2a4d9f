"""What a site does with each message: join, follow the head, train, deliver. No broker, no clock, no PyTorch.

    plan -> join -> admitted -> (head of version v -> train round v + 1 -> deliver until settled) -> finished

`receive` and `tick` return the messages to publish; when they return, all that must survive is on disk.
Whatever comes, they return: what is refused is logged and counted, and a run that this site cannot take part
in is declined with the reason. A later run of the same aggregator is followed, and the one before put away,
once the aggregator has admitted this site to it: a plan may be an old copy, the answer to a new request not.
"""

import logging
from collections.abc import Callable

from fedmedclip.edge_client.site.application import Application
from fedmedclip.edge_client.site.delivery import Delivery
from fedmedclip.edge_client.site.limits import Limits, Sent
from fedmedclip.edge_client.site.masking import Masking
from fedmedclip.edge_client.site.membership import Membership
from fedmedclip.edge_client.site.permission import Permission
from fedmedclip.edge_client.site.plan_follower import PlanFollower
from fedmedclip.edge_client.site.policy import AUTOMATIC, PolicySettings
from fedmedclip.edge_client.site.proof import Proof
from fedmedclip.edge_client.site.rations import LOGGED_AT_ONCE, SECONDS_PER_LOGGED, Rations
from fedmedclip.edge_client.site.roles import Identity, Learner
from fedmedclip.edge_client.site.round_training import RoundTraining
from fedmedclip.edge_client.site.run import Run
from fedmedclip.edge_client.site.shared_metrics import SharedMetrics
from fedmedclip.edge_client.site.standing import Standing
from fedmedclip.edge_client.site.state import Sealed, SiteState
from fedmedclip.edge_client.site.watch import Observer
from fedmedclip.protocol import topics
from fedmedclip.protocol.allowance import Allowance
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.envelope import NO_IDENTITY, Envelope, open_envelope
from fedmedclip.protocol.errors import HeadError, InvalidInputError, MessageError, OtherVersionError
from fedmedclip.protocol.messages import (
    MOST_METRICS_BYTES,
    Anew,
    Announcement,
    Block,
    BlockRequest,
    Confirmations,
    JoinAnswer,
    Message,
    Metrics,
    Participants,
    Plan,
    Receipt,
    Renewal,
    RenewalRequest,
    RosterNotice,
    RoutedShares,
    Snapshot,
    StateRequest,
    Status,
    Survivors,
)
from fedmedclip.protocol.moments import Moments
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.site")


def keep_no_record(topic: str, payload: bytes, message: Message, now: float) -> None:
    """Let a message go unrecorded: for a site that is played in memory."""


class SiteAgent:
    """One site's part in one federation. It takes up what `state` holds: a killed site goes on from there.

    `uplink_codec` replaces the federation's for what this site sends; a receiver reads any. Where the
    federation has a roster, `membership` follows it and renews this site's certificate. `note` is told of
    each message before it is acted on, with its topic and payload, and may refuse it with a MessageError.
    `policy` is what the operator allows; its bounds on bytes are of what `sent` has counted. `shared_metrics`
    has what the centre is told of each version; without it that is nothing.
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
        note: Callable[[str, bytes, Message, float], None] = keep_no_record,
        policy: PolicySettings = AUTOMATIC,
        sent: Sent | None = None,
        shared_metrics: SharedMetrics | None = None,
    ) -> None:
        self._note = note
        self._identity = identity
        self._shared_metrics = shared_metrics
        self._membership = membership
        self._maximum_message_bytes = maximum_message_bytes
        own_codec = None if uplink_codec is None else delta_codec_named(uplink_codec)
        self._early_announcement: bytes | None = None
        self.moments = moments or Moments(state.session(), state.begin_session)
        self._application = Application(identity, learner, self.moments)
        self._delivery = Delivery(state, maximum_message_bytes)
        self._proof = Proof(state)
        self._rations = Rations()
        self._complaints = Allowance(LOGGED_AT_ONCE, SECONDS_PER_LOGGED, 0.0)
        self.refused_messages = 0
        self._has_other_version = False
        self._online = False
        self._run = Run(identity, state, learner, self._delivery, self._proof)
        self._masking = self._delivery.masking = Masking(
            identity,
            state,
            self._run,
            maximum_message_bytes,
            None if membership is None else membership.key_of,
            learner.compressed,
        )
        self._permission = Permission(
            state.consents, policy, tuple if membership is None else lambda: membership.coordinator_keys
        )
        self._limits = Limits(policy, state.contributions, sent)
        self._plans = PlanFollower(
            identity, learner, state, self._run, self._application, membership, self._permission
        )
        self._training = RoundTraining(
            identity,
            state,
            learner,
            self._run,
            self._application,
            self._delivery,
            own_codec,
            self._permission,
            self._limits,
        )

    def receive(self, topic: str, payload: bytes, now: float) -> list[Message]:
        """Handle one message of the aggregator and return the answers to publish on the site's `up` topic.

        A message that is refused is logged and counted.
        """
        try:
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, RosterNotice):
                self._note(topic, payload, envelope.message, now)
                return self._take_roster(envelope, envelope.message, now)
            if isinstance(envelope.message, Plan):
                envelope.verify(envelope.message.aggregator_key, envelope.message.identity)
                self._note(topic, payload, envelope.message, now)
                return self._plans.take(envelope.message, payload, now, online=self._online)
            if self._plans.held:
                return self._hear_held(envelope, payload, now)
            plan = self._run.plan
            if plan is None or self._plans.candidate is not None:
                return self._hear_early(envelope, payload, now)
            if not self._wants(envelope.message):
                return []
            message = envelope.verify(self._plans.key_of(plan), plan.identity)
            self._note(topic, payload, message, now)
            if isinstance(message, Announcement | Snapshot):
                self._proof.keep(message.version, Sealed(topic, payload))
            # What is new of a version leaves before its round is trained, not after.
            return [*self._handle(message, now), *self._metrics(now)]
        except (MessageError, HeadError, InvalidInputError) as error:
            self.refused_messages += 1
            self._has_other_version = isinstance(error, OtherVersionError)
            self._complain(topic, error, now)
            return []

    def tick(self, now: float) -> list[Message]:
        """Let time pass: go by what the operator decided, train when there is a round to train, ask and
        deliver again what is unanswered.
        """
        decided = self._look_at_decisions(now) if self._permission.changed() else []
        plan = self._plans.newest
        if not self._online or plan is None:
            return []
        return [*decided, *self._due(plan, now)]

    def _due(self, plan: Plan, now: float) -> list[Message]:
        if not self._application.knows(plan):
            # The broker gave this site an old copy; whoever asks is told the newest.
            self._application.repeat()
        asked = self._application.due(self.version, plan, now)
        if self._plans.held and self._run.plan is not None:
            # A member that waits for its operator remains one.
            return [*asked, *self._due_of_member(now)]
        if self._plans.waits or not self.joined:
            return asked
        assert self._run.follower is not None
        heads, unanswered = self._run.follower.tick(now), self._delivery.unanswered(now)
        sent = self._training.deliver(now)
        if heads or (unanswered and not self._delivery.is_due(now)):
            # Whoever does not answer may be an aggregator that has lost this member.
            self._application.repeat()
        return [
            *asked,
            *heads,
            *self._due_of_member(now),
            *sent,
            *self._training.train(now),
            *self._metrics(now),
        ]

    def _due_of_member(self, now: float) -> list[BlockRequest | RenewalRequest]:
        return [] if self._membership is None else self._membership.due(now)

    def _metrics(self, now: float) -> list[Metrics]:
        """Return what to say of how good the newest version is here."""
        plan, shared = self._run.plan, self._shared_metrics
        if shared is None or plan is None or not self._online or not self.joined or self._plans.waits:
            return []
        return [] if self._limits.reason_to_keep(MOST_METRICS_BYTES) else shared.due(plan, now)

    def handed_over(self, message: Message, token: int) -> None:
        """Take note of the token by which the link tells when the broker has a message."""
        if isinstance(message, Metrics) and self._shared_metrics is not None:
            self._shared_metrics.handed_over(token)

    def published(self, token: int) -> None:
        """Take note of what the broker has."""
        if self._shared_metrics is not None:
            self._shared_metrics.published(token)

    def limit_messages(self, maximum_message_bytes: int) -> None:
        """Cut updates into blocks by what this connection's broker takes."""
        self._maximum_message_bytes = maximum_message_bytes
        self._delivery.limit_messages(maximum_message_bytes)

    def connected(self) -> None:
        """Begin a new connection: the next tick joins again and delivers again what is not settled."""
        self._online = True
        self._application.begin()
        self._delivery.send_at_once()
        self._training.abstention.repeat()
        if self._run.withheld:
            self._delivery.withhold()

    def disconnected(self) -> None:
        """Stay silent until the next connection; what was asked or sent meanwhile would pile up unsent."""
        self._online = False

    def _wants(self, message: Message) -> bool:
        """Whether a message is worth a look at who signed it: a block of nothing that is expected is not."""
        assert self._run.follower is not None
        if not isinstance(message, Block) or self._run.follower.expects(message):
            return True
        return self._membership is not None and self._membership.expects(message)

    def _hear_early(self, envelope: Envelope, payload: bytes, now: float) -> list[Message]:
        """Take what comes before the run that it is of has begun here, which may begin with it."""
        if isinstance(envelope.message, Announcement):
            self._early_announcement = payload
        if self._plans.candidate is None or not isinstance(envelope.message, JoinAnswer):
            return []
        self._note(envelope.topic, payload, envelope.message, now)
        began = self._plans.take_answer(envelope, envelope.message, now)
        early = self._early_announcement
        if not began or early is None:
            return []
        self._early_announcement = None
        return self.receive(topics.head(self._identity.federation), early, now)

    def _hear_held(self, envelope: Envelope, payload: bytes, now: float) -> list[Message]:
        """Take what keeps this site a member; of the run, which its operator has not approved, remember the
        newest version to go on from.
        """
        message, membership, plan = envelope.message, self._membership, self._plans.newest
        if isinstance(message, Announcement):
            self._early_announcement = payload
        if membership is None or plan is None:
            return []
        if isinstance(message, Renewal) or (isinstance(message, Block) and membership.expects(message)):
            envelope.verify(self._plans.key_of(plan), plan.identity)
            self._note(envelope.topic, payload, message, now)
            if isinstance(message, Renewal):
                membership.take_renewal(message)
            elif membership.add_block(message):
                return self._look_at_roster(now)
        return []

    def _look_at_decisions(self, now: float) -> list[Message]:
        """Begin, go on or stop, as the operator has decided."""
        was_held = self._plans.held
        messages = self._plans.reconsider(now)
        if was_held and not self._plans.waits and (early := self._early_announcement) is not None:
            self._early_announcement = None
            messages += self.receive(topics.head(self._identity.federation), early, now)
        return messages

    def _within_limits(self, messages: list[Message]) -> list[Message]:
        """Return what is asked for, or nothing of it where so much may not leave now."""
        size = sum(len(message.data) for message in messages if isinstance(message, Block))
        return [] if size and self._limits.reason_to_keep(size) else messages

    def _handle(self, message: Message, now: float) -> list[Message]:
        assert self._run.follower is not None
        match message:
            case JoinAnswer():
                self._application.take_answer(message, self.version, now)
            case Announcement() | Snapshot():
                if message.version == self.version:
                    self._training.reopen(message.version + 1)
                requests = self._run.follower.take(message, now)
                self._run.draw.forget_after(self._run.follower.newest_announced)
                self._run.draw.note(message)
                return [*requests]
            case Block():
                if self._membership is not None and self._membership.add_block(message):
                    return self._look_at_roster(now)
                return [*self._run.follower.add_block(message, now)]
            case Renewal() if self._membership is not None:
                self._membership.take_renewal(message)
            case Receipt():
                if self._delivery.take_receipt(message, now):
                    self._run.reload()
                    if not message.accepted and not message.closed:
                        # Perhaps this site is no member any more: the answer to a Join says so.
                        self._application.repeat()
            case Participants() | RoutedShares() | Survivors() | Confirmations() | Anew():
                return self._masking.take(message)
            case BlockRequest() | StateRequest() if not self._rations.allow(message, now):
                return []
            case BlockRequest():
                proof = self._proof.blocks(message, self._maximum_message_bytes)
                return self._within_limits([*self._delivery.blocks(message), *proof])
            case StateRequest():
                return self._within_limits(self._proof.show(self.version, self._maximum_message_bytes))
            case _:
                raise MessageError(f"{type(message).__name__} is not for a site")
        return []

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

    @property
    def version(self) -> int:
        """The newest version of the global head that is here; -1 before the first."""
        return self._plans.version

    @property
    def plan_identity(self) -> bytes:
        """The identity of the plan that is here, for which every message of this site is sealed."""
        plan = self._plans.newest
        return NO_IDENTITY if plan is None else plan.identity

    @property
    def run_number(self) -> int:
        """The number of the newest run that is known here; 0 before the first."""
        plan = self._plans.newest
        return 0 if plan is None else plan.number

    @property
    def online(self) -> bool:
        """Whether the connection to the broker stands."""
        return self._online

    @property
    def joined(self) -> bool:
        """Whether the aggregator has admitted this site on this connection."""
        return self._application.joined

    @property
    def finished(self) -> bool:
        """Whether the run is over, its last head is here, and no later one was seen."""
        stored = self._run.stored
        return not self._plans.waits and stored is not None and stored.finished

    def observe(self, observer: Observer) -> None:
        """Tell somebody from now on what happens."""
        self._application.observer = self._delivery.observer = self._training.observer = observer

    def standing(self) -> Standing:
        """Return where this site stands, for people."""
        stored, declined = self._run.stored, self._application.declined
        return Standing(
            self._plans.newest,
            self.joined,
            self.finished,
            "" if declined is None else declined[1],
            "" if self._plans.waits else self._training.withheld or self._kept_back(),
            self.version,
            0 if stored is None else stored.trained_round,
            self._delivery.under_way,
        )

    def _kept_back(self) -> str:
        """Return why the policy lets nothing of the open round leave; empty where it does."""
        round_number, reason = self._training.kept_back
        return reason if round_number == self.version + 1 else ""

    @property
    def wanted_bundle(self) -> bytes | None:
        """The digest of another bundle, without which this site cannot take part in the newest run."""
        plan = self._plans.newest
        other = plan is not None and plan.bundle_digest != self._identity.bundle_digest
        return plan.bundle_digest if plan is not None and other and self._plans.waits else None

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
        stored = self._run.stored
        shown = stored is not None and not stored.finished and stored.trained_round > stored.version
        return said is None or not shown or bool(self._training.withheld)
