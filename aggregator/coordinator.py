"""What the aggregator answers to each message: joins, updates, blocks, requests. No broker, no clock.

    message -> who may send it, so often, with this key -> what it is for -> messages to publish

`receive` and `tick` return the messages to publish; when they return, everything that these promise is on
disk, so the caller may acknowledge what it handed in. Whatever comes, they return: a message that is refused
is logged and counted.
"""

import time
from collections.abc import Callable

from fedmedclip.aggregator.admission import Admission
from fedmedclip.aggregator.answers import answers_due
from fedmedclip.aggregator.certificate_end import CertificateEnd
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.floods import BLOCKS_OF_NOTHING, STRANGERS, kind_of
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.members import Unable
from fedmedclip.aggregator.progress import Progress
from fedmedclip.aggregator.register import Register
from fedmedclip.aggregator.restoration import adopt
from fedmedclip.aggregator.round_events import Tick
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.aggregator.secure_rounds import SecureMessage, SecureRounds
from fedmedclip.aggregator.settling import Settling
from fedmedclip.aggregator.steering import Steering
from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.traffic import TrafficCount
from fedmedclip.aggregator.version_watch import VersionWatch
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import Envelope, open_envelope
from fedmedclip.protocol.errors import HeadError, InvalidInputError, MessageError
from fedmedclip.protocol.messages import (
    Abstain,
    Block,
    BlockRequest,
    HeadRequest,
    Join,
    MaskKeys,
    Message,
    Metrics,
    Plan,
    PrivacySpent,
    RenewalRequest,
    State,
    Status,
    Update,
)


class Coordinator:
    """Holds one run of a federation together. State that must survive is in the store; the rest is rebuilt
    from it.
    """

    def __init__(
        self,
        configuration: AggregatorConfiguration,
        plan: Plan,
        store: Store,
        global_head: GlobalHead,
        now: float,
        has_room: Callable[[], bool] = lambda: True,
        wall_clock: Callable[[], float] = time.time,
        register: Register | None = None,
    ) -> None:
        """Take up the run of `plan`. `has_room` says whether more answers may be handed to the link;
        `wall_clock` gives the seconds since 1970; `register` holds the roster, where there is one.
        """
        self._run = run = Run(configuration, plan, store, global_head, wall_clock, register)
        self._has_room = has_room
        self._progress = Progress(run, now)
        self._admission = Admission(run, self._progress)
        self._settling = Settling(run, self._progress)
        self.global_head = global_head
        self.rounds = self._progress.rounds
        self.floods = run.floods
        self.chronicle = run.chronicle
        """What has happened, for people."""
        self.quarantined = run.quarantined
        """Whose updates do not count, and why."""
        self.versions_held = run.versions_held
        """The newest version that each member has said it holds."""
        self.refused_messages = run.refused_messages
        self.last_refusals = run.last_refusals
        """Why the newest message of each sender that was refused was."""
        self.traffic = TrafficCount(store.traffic, plan.number)
        """Counts what this process sends and receives."""
        self.store = store
        self.renewal_requests: dict[str, bytes] = {}
        """The newest request for a certificate of each member that asked, for whoever issues them."""
        self.warnings: list[str] = []
        """What the operator should know, by whoever looks after the federation's folder."""
        self.certificates: list[CertificateEnd] = []
        """When certificates end, by whoever looks after the federation's folder."""
        # What the operator, the roster and the service do beside the messages that come.
        steering = Steering(run, self._progress, self._admission)
        self._secure = SecureRounds(run, self._progress, steering)
        self._pass_over = steering.pass_over
        self._watch = VersionWatch(run, steering)
        self.metric_warnings = self._watch.warnings
        self.revise = steering.revise
        self.roll_back = steering.roll_back
        self.leave_out = steering.leave_out
        self.drop = steering.drop
        self.change_deadline = steering.change_deadline
        self.quarantine = steering.quarantine
        self.release = steering.release
        self.reconfigure = steering.reconfigure
        self.follow_membership = self._admission.follow_membership
        self.opening = run.opening
        self.roster_notice = run.roster_notice

    def receive(self, topic: str, payload: bytes, now: float) -> list[Outgoing]:
        """Handle one message of a site. A message that is refused is logged and costs nobody anything."""
        site, outgoing = topics.site_of(topic), list[Outgoing]()
        # Strangers count together: anybody can invent names without end.
        sender = site if site in self._run.members.keys else STRANGERS
        try:
            topics.check_name("site", site)
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, Join):
                outgoing += self._admission.join(site, envelope, envelope.message, now)
            elif site not in self._run.members.keys:
                raise MessageError(f"{site} has not joined")
            else:
                outgoing += self._hear(site, envelope, now)
        except (MessageError, InvalidInputError, HeadError) as error:
            self._run.refuse(sender, site, str(error), now)
        return outgoing + answers_due(self._run, now, self._has_room)

    def tick(self, now: float) -> list[Outgoing]:
        """Let time pass: rounds and leases run out, what stays away is asked for again."""
        run, outgoing = self._run, list[Outgoing]()
        for site, request in run.intake.overdue(now):
            # For a site that is away the broker would keep every one of them.
            if self.rounds.present(site):
                outgoing += run.to(site, request)
        outgoing += self._progress.advance(Tick(), now)
        outgoing += self._secure.tick(now)
        outgoing += self._pass_over(now)
        if (asked := run.recovery.request(self.global_head.version, now)) is not None:
            outgoing += run.to(*asked)
        return outgoing + answers_due(run, now, self._has_room)

    def _hear(self, site: str, envelope: Envelope, now: float) -> list[Outgoing]:
        """Take what came on the topic of a site that was admitted, once its key has signed it."""
        members, floods = self._run.members, self.floods
        kind = kind_of(envelope.message)
        if isinstance(envelope.message, Block) and not self._expects(site, envelope.message):
            # Nobody need look at who signed it.
            if not floods.drops(site, BLOCKS_OF_NOTHING, now):
                floods.take(site, BLOCKS_OF_NOTHING, now)
            return []
        if floods.drops(site, kind, now):
            return []
        message = envelope.verify(members.keys[site], self.plan.identity)
        floods.take(site, kind, now)
        if reason := members.reason_inactive(site):
            return self._admission.turn_away(site, message, reason, now)
        if isinstance(message, MaskKeys):
            return self._secure.keys(site, message, envelope, now)
        if isinstance(message, SecureMessage):
            return self._secure.take(site, message, envelope, now)
        return self._handle(site, message, now)

    def _expects(self, site: str, block: Block) -> bool:
        holders = (self._run.intake, self._run.recovery, self._secure)
        return any(holder.expects(site, block) for holder in holders)

    def _handle(self, site: str, message: Message, now: float) -> list[Outgoing]:
        match message:
            case Update() if self.plan.secure is not None:
                raise MessageError("the plan asks for updates under masks, this one is in the clear")
            case Block() if self._secure.expects(site, message):
                return self._secure.block(site, message, now)
            case Update():
                return self._settling.update(site, message, now)
            case Block() | State():
                return self._take_part(site, message, now)
            case BlockRequest() | HeadRequest():
                self._run.requests.put(site, message)
                return []
            case Abstain():
                return self._settling.abstain(site, message, now)
            case Status():
                return self._status(site, message, now)
            case Metrics():
                return self._watch.take(site, message, now)
            case RenewalRequest() if self._run.register is not None:
                self.renewal_requests[site] = message.certificate_request
                return []
            case _:
                raise MessageError(f"{type(message).__name__} is not for the aggregator")

    def _take_part(self, site: str, part: Block | State, now: float) -> list[Outgoing]:
        """Take a part of the state that a member was asked for, or of its update."""
        if (evidence := self._run.recovery.take(site, part, now)) is not None:
            return adopt(self._run, self._progress, evidence, now)
        return self._settling.block(site, part, now) if isinstance(part, Block) else []

    def _status(self, site: str, status: Status, now: float) -> list[Outgoing]:
        """Believe the latest that a site says of itself; an old copy says nothing."""
        if not self._run.members.note(site, status.moment):
            return []
        self._run.holds(site, status.version)
        return self._progress.is_there(site, now) if status.online else self._progress.is_gone(site, now)

    @property
    def plan(self) -> Plan:
        """The run's plan, of the newest revision."""
        return self._run.plan

    def joined(self) -> dict[str, bytes]:
        """Return the key of each site that has joined, a member still or not."""
        return self._run.members.keys

    @property
    def federation(self) -> str:
        """The federation's name."""
        return self._run.settings.name

    @property
    def maximum_share(self) -> float:
        """The largest share that a site has of a mean."""
        return self._run.settings.maximum_share

    @property
    def unable(self) -> dict[str, Unable]:
        """Those that said that they cannot take part in this run, members or not, and why."""
        return self._run.members.unable

    @property
    def lacks_consent(self) -> str:
        """Why no round can close as long as operators do not approve the plan; empty where one can."""
        return self._admission.lacks_consent

    def software(self) -> dict[str, str]:
        """Return the version of the software that each member said it runs."""
        return self._run.store.software()

    def privacy(self) -> dict[str, PrivacySpent]:
        """Return what each member said last in this run that its privacy has cost."""
        return self._run.store.privacy()

    @property
    def settled(self) -> bool:
        """Whether the run is finished and every site that is present holds the last version."""
        return self.global_head.finished and all(
            self.versions_held.get(site) == self.global_head.version
            for site in self.rounds.members
            if self.rounds.present(site)
        )
