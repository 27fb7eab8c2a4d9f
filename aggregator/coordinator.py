"""What the aggregator answers to each message: joins, updates, blocks, requests. No broker, no clock.

`receive` and `tick` return the messages to publish; when they return, everything that these promise is on
disk, so the caller may acknowledge what it handed in. Whatever comes, they return: a message that is refused
is logged and counted.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.intake import Intake, Terms, Verdict
from fedmedclip.aggregator.members import Members, Unable
from fedmedclip.aggregator.recovery import Recovery
from fedmedclip.aggregator.requests import Request, Requests
from fedmedclip.aggregator.round_events import (
    Action,
    CloseRound,
    Event,
    HeadAdvanced,
    ReportOverdue,
    RoundSettings,
    SiteExcused,
    SiteHeard,
    SiteJoined,
    SiteLeft,
    Tick,
    UpdateLost,
    UpdateStored,
)
from fedmedclip.aggregator.round_logic import Rounds
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.errors import HeadError, InvalidInputError, MessageError
from fedmedclip.protocol.heads.evidence import Evidence, proven_head, proven_plan
from fedmedclip.protocol.messages import (
    Abstain,
    Block,
    BlockRequest,
    HeadRequest,
    Join,
    JoinAnswer,
    Message,
    Plan,
    Receipt,
    State,
    Status,
    Update,
)
from fedmedclip.protocol.participation import LOTS, lot_of
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.aggregator")


STRANGERS = ""
"""Under which the refused messages of those who are no members are counted."""


@dataclass(frozen=True)
class Outgoing:
    """A message to sign and publish."""

    topic: str
    message: Message
    retain: bool = False


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
    ) -> None:
        """Take up the run of `plan`. `has_room` says whether more answers may be handed to the link;
        `wall_clock` gives the seconds since 1970.
        """
        self._configuration = configuration
        self.plan = plan
        self._store = store
        self._members = Members(store)
        self._intake = Intake(store, global_head.specification)
        self.global_head = global_head
        self._has_room = has_room
        self._wall_clock = wall_clock
        self._requests = Requests()
        self._recovery = Recovery(global_head.specification)
        self.versions_held: dict[str, int] = {}
        """The newest version that each member has said it holds."""
        self.refused_messages: Counter[str] = Counter()
        # After a restart every member counts as present, until it says otherwise or its lease ends.
        open_round = global_head.version + 1
        self.rounds = Rounds(
            self._round_settings(),
            global_head.version,
            self._members.keys,
            now,
            partial(lot_of, plan.seed),
            store.drawn_below(open_round),
        )
        for site, round_number in store.stored_updates():
            if site not in self._members.keys:
                log.error("the stored update of %s for round %d is of nobody: dropped", site, round_number)
                store.forget_update(round_number, site)
                continue
            self.rounds.handle(UpdateStored(site, round_number < open_round), now)
        self._record_draw()

    @property
    def _settings(self) -> FederationSettings:
        return self._configuration.federation

    def _round_settings(self) -> RoundSettings:
        settings = self._settings
        return RoundSettings(
            self.plan.rounds,
            settings.minimum_sites,
            settings.round_timeout_seconds,
            settings.lease_seconds,
            self.plan.paused,
            settings.sites_per_round,
            settings.buffer_size,
        )

    def opening(self) -> list[Outgoing]:
        """Return what every site must be able to read: the plan and the newest head, both retained."""
        federation = self._settings.name
        return [
            Outgoing(topics.plan(federation), self.plan, retain=True),
            Outgoing(topics.head(federation), self.global_head.announcement(), retain=True),
        ]

    @property
    def federation(self) -> str:
        """The federation's name."""
        return self._settings.name

    @property
    def unable(self) -> dict[str, Unable]:
        """Those that said that they cannot take part in this run, members or not, and why."""
        return self._members.unable

    def software(self) -> dict[str, str]:
        """Return the version of the software that each member said it runs."""
        return self._store.software()

    @property
    def settled(self) -> bool:
        """Whether the run is finished and every site that is present holds the last version."""
        return self.global_head.finished and all(
            self.versions_held.get(site) == self.global_head.version
            for site in self.rounds.members
            if self.rounds.present(site)
        )

    def revise(
        self,
        now: float,
        *,
        rounds: int | None = None,
        paused: bool | None = None,
        maximum_update_norm: float | None = None,
    ) -> list[Outgoing]:
        """Change the run while it goes on, and tell the sites; None leaves a value as it is."""
        wanted = {"rounds": rounds, "paused": paused, "maximum_update_norm": maximum_update_norm}
        changes = {
            name: value
            for name, value in wanted.items()
            if value is not None and value != getattr(self.plan, name)
        }
        if not changes:
            return []
        # By the clock: one that was lost with this aggregator's state is not given to another change.
        revision = max(self.plan.revision + 1, int(self._wall_clock()))
        self.plan = msgspec.structs.replace(self.plan, **changes, revision=revision)
        self._store.revise(self.plan)
        self.global_head.rounds = self.plan.rounds
        self.rounds.settings = self._round_settings()
        log.info("the run is changed: %s", ", ".join(f"{name} {value}" for name, value in changes.items()))
        return [*self.opening(), *self._advance(Tick(), now)]

    def roll_back(self, to_version: int, now: float) -> list[Outgoing]:
        """Go on from the head of an earlier version: it becomes a new one, which every site follows.

        Members that are ahead of what is here follow too, so this also ends a dispute with them. The run
        keeps as many rounds as were left. Raises InvalidInputError when that head is not to be had.
        """
        ahead = max(self._recovery.ahead.values(), default=0)
        before = self.global_head.version
        version = self.global_head.roll_back(to_version, ahead)
        self._intake.clear()
        self._recovery.over(version)
        log.warning("rolled back: version %d has the head of version %d", version, to_version)
        # First the round: an announcement says who is drawn for it.
        advanced = self._advance(HeadAdvanced(version), now)
        later = self.revise(now, rounds=self.plan.rounds + version - before)
        return [*later, *self.opening(), *advanced]

    def leave_out(self, site: str, now: float) -> list[Outgoing]:
        """Do not wait for a site in the open round. Raises InvalidInputError when it is no member."""
        if site not in self.rounds.members:
            raise InvalidInputError(
                f"{site!r} is no member; members are {', '.join(sorted(self.rounds.members))}"
            )
        return self._advance(SiteExcused(site, "left out by the operator"), now)

    def reconfigure(
        self, before: AggregatorConfiguration, edited: AggregatorConfiguration, now: float
    ) -> list[Outgoing]:
        """Take over what was edited, of what may change while a run goes on: limits, times, keys, rounds.

        Raises InvalidInputError when the federation has another name.
        """
        old, new = before.federation, edited.federation
        if new.name != old.name:
            raise InvalidInputError(f"a federation keeps its name: {old.name!r}")
        self._configuration = edited
        self.rounds.settings = self._round_settings()
        return [
            *self.revise(
                now,
                rounds=new.rounds if new.rounds != old.rounds else None,
                maximum_update_norm=(
                    new.maximum_update_norm if new.maximum_update_norm != old.maximum_update_norm else None
                ),
            ),
            *self._advance(Tick(), now),
        ]

    def tick(self, now: float) -> list[Outgoing]:
        """Let time pass: rounds and leases run out, what stays away is asked for again."""
        outgoing: list[Outgoing] = []
        for site, request in self._intake.overdue(now):
            # For a site that is away the broker would keep every one of them.
            if self.rounds.present(site):
                outgoing += self._to(site, request)
        outgoing += self._advance(Tick(), now)
        if (asked := self._recovery.request(self.global_head.version, now)) is not None:
            outgoing += self._to(*asked)
        return outgoing + self._answers(now)

    def receive(self, topic: str, payload: bytes, now: float) -> list[Outgoing]:
        """Handle one message of a site. A message that is refused is logged and costs nobody anything."""
        site = topics.site_of(topic)
        outgoing: list[Outgoing] = []
        try:
            topics.check_name("site", site)
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, Join):
                envelope.verify(envelope.message.public_key, self.plan.identity)
                return self._join(site, envelope.message, now)
            if site not in self._members.keys:
                raise MessageError(f"{site} has not joined")
            message = envelope.verify(self._members.keys[site], self.plan.identity)
            if self._members.takes_part(site):
                left = isinstance(message, Status) and not message.online
                outgoing += self._advance(SiteLeft(site) if left else SiteHeard(site), now)
            outgoing += self._handle(site, message, now)
        except (MessageError, InvalidInputError, HeadError) as error:
            # Strangers count together: anybody can invent names without end.
            self.refused_messages[site if site in self._members.keys else STRANGERS] += 1
            log.warning("refused a message of %s: %s", site, error)
        return outgoing + self._answers(now)

    def _handle(self, site: str, message: Message, now: float) -> list[Outgoing]:
        match message:
            case Update():
                return self._update(site, message, now)
            case Block():
                return self._block(site, message, now)
            case BlockRequest() | HeadRequest():
                self._requests.put(site, message)
                return []
            case Abstain():
                return self._abstain(site, message, now)
            case State():
                return self._adopt(self._recovery.take(site, message, now), now)
            case Status():
                self._holds(site, message.version)
                return []
            case _:
                raise MessageError(f"{type(message).__name__} is not for the aggregator")

    def _answers(self, now: float) -> list[Outgoing]:
        """Answer the requests whose turn it is, as far as there is room."""
        outgoing: list[Outgoing] = []
        for site, request in self._requests.due(now, self._has_room):
            try:
                outgoing += self._answer(site, request)
            except MessageError as error:
                log.warning("cannot answer %s: %s", site, error)
        return outgoing

    def _answer(self, site: str, request: Request) -> list[Outgoing]:
        if isinstance(request, BlockRequest):
            return self._to(site, *self.global_head.blocks(request.object_digest, request.missing))
        self._holds(site, request.have_version)
        outgoing: list[Outgoing] = []
        for answer in self.global_head.catch_up(request.have_version):
            outgoing += self._to(site, answer, *self.global_head.blocks_behind(answer))
        return outgoing

    def _holds(self, site: str, version: int) -> None:
        """Note the newest version that a member holds: one above ours shows that state was lost here."""
        self.versions_held[site] = version
        self._recovery.tell(site, version, self.global_head.version)

    def _adopt(self, evidence: Evidence | None, now: float) -> list[Outgoing]:
        """Go on from the state that a member proved, when it is newer than ours."""
        if evidence is None:
            return []
        plan = proven_plan(evidence, self._settings.name, self.plan.aggregator_key)
        if plan.identity != self.plan.identity:
            raise MessageError(
                f"it follows run {plan.number}, this aggregator's state is of run {self.plan.number}; "
                "restore a newer backup, or begin another run: fedmedclip aggregator --new-run"
            )
        version, head = proven_head(evidence, plan, self.global_head.specification)
        if version <= self.global_head.version:
            return []
        if plan.revision > self.plan.revision:
            self.plan = plan
            self._store.revise(plan)
            self.global_head.rounds = plan.rounds
            self.rounds.settings = self._round_settings()
        self.global_head.adopt(version, head)
        self._intake.clear()
        self._recovery.over(version)
        log.warning("took version %d back from a site that had it; going on from there", version)
        advanced = self._advance(HeadAdvanced(version), now)
        return self.opening() + advanced

    def _join(self, site: str, join: Join, now: float) -> list[Outgoing]:
        if join.cannot and not self._members.is_of_another(site, join):
            self._members.note_unable(site, join)
            return self._advance(SiteLeft(site), now) if site in self._members.keys else []
        reason = self._members.reason_to_refuse(site, join, self.plan.bundle_digest, self._configuration)
        answer = self._to(site, JoinAnswer(fingerprint(join.public_key), not reason, reason[:400]))
        if reason:
            log.warning("%s may not join: %s", site, reason)
            return answer
        self._members.admit(site, join)
        self._holds(site, join.version)
        drawn_before = self.global_head.drawn_below
        advanced = self._advance(SiteJoined(site), now)
        drawn_below = self.global_head.drawn_below
        if drawn_below is not None and drawn_below == drawn_before and self.rounds.drawn(site):
            # It may have been called after the announcement that it reads at the broker.
            return answer + self._to(site, self.global_head.call()) + advanced
        return answer + advanced

    def _terms(self) -> Terms:
        head = self.global_head
        return Terms(
            head.version, head.finished, self.plan.maximum_update_norm, self._settings.maximum_staleness
        )

    def _update(self, site: str, update: Update, now: float) -> list[Outgoing]:
        open_round = self.global_head.version + 1
        if update.round_number >= open_round:
            # Whoever trains a round holds the version before it, and publishes no status to say so.
            self._holds(site, update.round_number - 1)
        if update.round_number > open_round:
            # Trained from a version that was lost here: it is neither counted nor refused, but asked for.
            return []
        drawn = self._was_drawn(site, update.round_number)
        return self._settle(site, self._intake.update(site, update, self._terms(), now, drawn=drawn), now)

    def _was_drawn(self, site: str, round_number: int) -> bool:
        if round_number == self.global_head.version + 1:
            return self.rounds.drawn(site)
        drawn_below = self._store.drawn_below(round_number)
        return drawn_below is None or lot_of(self.plan.seed, site, round_number) < drawn_below

    def _block(self, site: str, block: Block, now: float) -> list[Outgoing]:
        if (evidence := self._recovery.take(site, block, now)) is not None:
            return self._adopt(evidence, now)
        return self._settle(site, self._intake.block(site, block, self._terms(), now), now)

    def _settle(self, site: str, verdict: Verdict | None, now: float) -> list[Outgoing]:
        """Tell a site what became of its update, and the round of what it changes there."""
        if verdict is None:
            return []
        number, refusal = verdict.round_number, verdict.refusal
        if refusal:
            log.warning("refused the update of %s for round %d: %s", site, number, refusal)
        receipt = self._to(site, Receipt(number, not refusal, refusal[:400], verdict.closed))
        if verdict.closed or verdict.known:
            return receipt
        if refusal:
            return receipt + self._advance(SiteExcused(site, f"its update was refused: {refusal}"), now)
        return receipt + self._advance(UpdateStored(site, verdict.late), now)

    def _abstain(self, site: str, abstain: Abstain, now: float) -> list[Outgoing]:
        if abstain.round_number != self.global_head.version + 1:
            return []
        log.warning("round %d: %s abstains: %s", abstain.round_number, site, abstain.reason)
        return self._advance(SiteExcused(site, f"it abstained: {abstain.reason}"), now)

    def _advance(self, event: Event, now: float) -> list[Outgoing]:
        """Move the round on; a round that closes is aggregated, stored and announced before this returns."""
        action = self.rounds.handle(event, now)
        drawn_before = self.global_head.drawn_below
        if self._record_draw() and not isinstance(event, HeadAdvanced):
            return self._call(drawn_before) + self._carry_out(action, now)
        return self._carry_out(action, now)

    def _record_draw(self) -> bool:
        """Write down who is drawn for the open round; return whether these are others than before."""
        drawn_below = self.rounds.drawn_below
        if drawn_below == self.global_head.drawn_below:
            return False
        self.global_head.drawn_below = drawn_below
        self._store.draw(self.global_head.version + 1, LOTS if drawn_below is None else drawn_below)
        return True

    def _call(self, drawn_before: int | None) -> list[Outgoing]:
        """Tell those who are drawn since the version was announced, and nobody else."""
        head = self.global_head
        called = [
            site
            for site in self.rounds.awaited
            if drawn_before is not None and lot_of(self.plan.seed, site, head.version + 1) >= drawn_before
        ]
        return [message for site in called for message in self._to(site, head.call())]

    def _carry_out(self, action: Action | None, now: float) -> list[Outgoing]:
        match action:
            case CloseRound(round_number, sites):
                if damaged := self._store.damaged_updates():
                    return self._ask_again_for(damaged, now)
                self.global_head.aggregate(round_number, self._settings.weighting)
                self.global_head.keep_at_most(self._settings.keep_megabytes << 20)
                self._intake.clear()
                log.info("round %d: aggregated %s", round_number, ", ".join(sites))
                advanced = self._advance(HeadAdvanced(round_number), now)
                return self._broadcast() + advanced
            case ReportOverdue(round_number, delivered, needed):
                log.warning(
                    "round %d: time is over, but only %d of at least %d sites have delivered; still "
                    "waiting%s",
                    round_number,
                    delivered,
                    needed,
                    "".join(f"; {site}: {reason}" for site, reason in self.rounds.excused().items()),
                )
        return []

    def _ask_again_for(self, damaged: list[tuple[str, int]], now: float) -> list[Outgoing]:
        """Drop updates that the disk has damaged; who is present and has his still sends it once more."""
        outgoing: list[Outgoing] = []
        for site, round_number in damaged:
            log.error("the stored update of %s for round %d is damaged; asking for it", site, round_number)
            self._store.forget_update(round_number, site)
            self.rounds.handle(UpdateLost(site, round_number <= self.global_head.version), now)
            outgoing += self._to(site, self.global_head.call())
        return outgoing

    def _broadcast(self) -> list[Outgoing]:
        federation = self._settings.name
        announcement = self.global_head.announcement()
        blocks = self.global_head.blocks_behind(announcement)
        return [
            Outgoing(topics.head(federation), announcement, retain=True),
            *(Outgoing(topics.blocks(federation), block) for block in blocks),
        ]

    def _to(self, site: str, *messages: Message) -> list[Outgoing]:
        topic = topics.down(self._settings.name, site)
        return [Outgoing(topic, message) for message in messages]
