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

from fedmedclip.aggregator.aggregation import Weighing
from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.floods import BLOCKS_OF_NOTHING, NOT_ACCEPTED, STRANGERS, Floods, kind_of
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.intake import Intake, Terms, Verdict
from fedmedclip.aggregator.members import Members, Unable
from fedmedclip.aggregator.recovery import Recovery
from fedmedclip.aggregator.register import Register
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
    SiteQuarantined,
    SiteReleased,
    SiteRemoved,
    Tick,
    UpdateLost,
    UpdateStored,
)
from fedmedclip.aggregator.round_logic import Rounds
from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.store import Quarantine, Store
from fedmedclip.protocol import moments, topics
from fedmedclip.protocol.envelope import Envelope, open_envelope
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
    Moment,
    Plan,
    Receipt,
    RenewalRequest,
    State,
    Status,
    Update,
)
from fedmedclip.protocol.participation import LOTS, lot_of
from fedmedclip.protocol.signature import fingerprint

log = logging.getLogger("fedmedclip.aggregator")

# How often the plan is published again for sites that know an earlier revision, at most.
_REPEAT_PLAN_SECONDS = 10.0


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
        register: Register | None = None,
    ) -> None:
        """Take up the run of `plan`. `has_room` says whether more answers may be handed to the link;
        `wall_clock` gives the seconds since 1970; `register` holds the roster, where there is one.
        """
        self._configuration = configuration
        self.plan = plan
        self._store = store
        self._register = register
        self._members = Members(store, configuration, register)
        self._intake = Intake(store, global_head.specification)
        self.global_head = global_head
        self._has_room = has_room
        self._wall_clock = wall_clock
        self._requests = Requests()
        self.floods = Floods()
        self._plan_repeated_at: float | None = None
        self.quarantined: dict[str, Quarantine] = store.quarantined()
        """Whose updates do not count, and why."""
        self._recovery = Recovery(global_head.specification)
        self.versions_held: dict[str, int] = {}
        """The newest version that each member has said it holds."""
        self.refused_messages: Counter[str] = Counter()
        self.renewal_requests: dict[str, bytes] = {}
        """The newest request for a certificate of each member that asked, for whoever issues them."""
        self.warnings: list[str] = []
        """What the operator should know, by whoever looks after the federation's folder."""
        # After a restart every member counts as present, until it says otherwise or its lease ends.
        open_round = global_head.version + 1
        self.rounds = Rounds(
            self._round_settings(),
            global_head.version,
            self._members.active,
            now,
            partial(lot_of, plan.seed),
            store.drawn_below(open_round),
            {site: _why(found) for site, found in self.quarantined.items()},
        )
        for site, round_number in store.stored_updates():
            if site not in self.rounds.members:
                if site not in self._members.keys:
                    log.error(
                        "the stored update of %s for round %d is of nobody: dropped", site, round_number
                    )
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

    def roster_notice(self) -> list[Outgoing]:
        """Return what is retained of the roster, where there is one."""
        if self._register is None:
            return []
        notice = self._register.notice(self.global_head.maximum_message_bytes)
        return [Outgoing(topics.roster(self._settings.name), notice, retain=True)]

    def joined(self) -> dict[str, bytes]:
        """Return the key of each site that has joined, a member still or not."""
        return self._members.keys

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
        aggregator_key: bytes | None = None,
    ) -> list[Outgoing]:
        """Change the run while it goes on, and tell the sites; None leaves a value as it is."""
        wanted = {
            "rounds": rounds,
            "paused": paused,
            "maximum_update_norm": maximum_update_norm,
            "aggregator_key": aggregator_key,
        }
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
        log.info(
            "the run is changed: %s", ", ".join(f"{name} {_shown(value)}" for name, value in changes.items())
        )
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
        self._require_member(site)
        return self._advance(SiteExcused(site, "left out by the operator"), now)

    def quarantine(self, site: str, reason: str, now: float) -> list[Outgoing]:
        """Let a site not count until it is released: it is not waited for, and what it delivers is refused.

        What it delivered for the open round is dropped. Refused with the reason, a site tries again, within
        an hour at most, so that it takes part again by itself once it is released; and nothing of it takes
        up room here. Raises InvalidInputError when it is no member.
        """
        self._require_member(site)
        found = Quarantine(reason, self._wall_clock())
        for _, round_number in self._store.quarantine(site, found):
            self.rounds.handle(UpdateLost(site, round_number <= self.global_head.version), now)
        self._intake.forget(site)
        self.quarantined[site] = found
        log.warning("%s is in quarantine: %s", site, reason or "no reason was given")
        return self._advance(SiteQuarantined(site, _why(found)), now)

    def release(self, site: str, now: float) -> list[Outgoing]:
        """Let a site count again; the open round does not wait for it.

        It is told the newest version, for which it may have an update that was dropped. Raises
        InvalidInputError when it is not in quarantine.
        """
        if site not in self.quarantined:
            names = ", ".join(sorted(self.quarantined)) or "nobody"
            raise InvalidInputError(f"{site!r} is not in quarantine; {names} is")
        self._store.release(site)
        del self.quarantined[site]
        log.warning("%s is released from quarantine", site)
        return [*self._to(site, self.global_head.call()), *self._advance(SiteReleased(site), now)]

    def _require_member(self, site: str) -> None:
        if site not in self.rounds.members:
            raise InvalidInputError(
                f"{site!r} is no member; members are {', '.join(sorted(self.rounds.members))}"
            )

    def reconfigure(
        self, before: AggregatorConfiguration, edited: AggregatorConfiguration, now: float
    ) -> list[Outgoing]:
        """Take over what was edited, of what may change while a run goes on: limits, times, keys, rule.

        Raises InvalidInputError when the federation has another name, or its rule cannot be used.
        """
        old, new = before.federation, edited.federation
        if new.name != old.name:
            raise InvalidInputError(f"a federation keeps its name: {old.name!r}")
        if new.rule != old.rule:
            self.global_head.rule = rule_for(self.plan.method, new.rule)
        self._configuration = self._members.configuration = edited
        self.rounds.settings = self._round_settings()
        return [
            *self.follow_membership(now),
            *self.revise(
                now,
                rounds=new.rounds if new.rounds != old.rounds else None,
                maximum_update_norm=(
                    new.maximum_update_norm if new.maximum_update_norm != old.maximum_update_norm else None
                ),
            ),
            *self._advance(Tick(), now),
        ]

    def follow_membership(self, now: float) -> list[Outgoing]:
        """Let go whoever is no member any more, with what it delivered, and take back who is one again."""
        outgoing: list[Outgoing] = []
        active = set(self._members.active)
        for site in sorted(self.rounds.members - active):
            outgoing += self._let_go(site, now)
        for site in sorted(active - self.rounds.members):
            outgoing += self._advance(SiteJoined(site), now)
        return outgoing

    def _let_go(self, site: str, now: float) -> list[Outgoing]:
        log.warning(
            "%s; what it delivered for the open round does not count", self._members.reason_inactive(site)
        )
        for owner, round_number in self._store.stored_updates():
            if owner == site:
                self._store.forget_update(round_number, site)
        self._intake.forget(site)
        self._requests.forget(site)
        self._recovery.forget(site)
        self.versions_held.pop(site, None)
        return self._advance(SiteRemoved(site), now)

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
        site, outgoing = topics.site_of(topic), list[Outgoing]()
        # Strangers count together: anybody can invent names without end.
        sender = site if site in self._members.keys else STRANGERS
        try:
            topics.check_name("site", site)
            envelope = open_envelope(payload, topic)
            if isinstance(envelope.message, Join):
                outgoing += self._join(site, envelope, envelope.message, now)
            elif site not in self._members.keys:
                raise MessageError(f"{site} has not joined")
            else:
                outgoing += self._hear(site, envelope, now)
        except (MessageError, InvalidInputError, HeadError) as error:
            self._refuse(sender, site, str(error), now)
        return outgoing + self._answers(now)

    def _refuse(self, sender: str, site: str, reason: str, now: float) -> None:
        """Count a message that was refused, and log it."""
        self.refused_messages[sender] += 1
        self._warn(sender, now, "refused a message of %s: %s", site, reason)

    def _warn(self, sender: str, now: float, words: str, *values: str) -> None:
        """Log what somebody did wrong, unless that is so often that it would flood the log itself."""
        if not self.floods.drops(sender, NOT_ACCEPTED, now):
            self.floods.take(sender, NOT_ACCEPTED, now)
            log.warning(words, *values)

    def _hear(self, site: str, envelope: Envelope, now: float) -> list[Outgoing]:
        """Take what came on the topic of a site that was admitted, once its key has signed it."""
        kind = kind_of(envelope.message)
        if isinstance(envelope.message, Block) and not self._expects(site, envelope.message):
            # Nobody need look at who signed it.
            if not self.floods.drops(site, BLOCKS_OF_NOTHING, now):
                self.floods.take(site, BLOCKS_OF_NOTHING, now)
            return []
        if self.floods.drops(site, kind, now):
            return []
        message = envelope.verify(self._members.keys[site], self.plan.identity)
        self.floods.take(site, kind, now)
        if reason := self._members.reason_inactive(site):
            return self._turn_away(site, message, reason, now)
        return self._handle(site, message, now)

    def _expects(self, site: str, block: Block) -> bool:
        return self._intake.expects(site, block) or self._recovery.expects(site, block)

    def _turn_away(self, site: str, message: Message, reason: str, now: float) -> list[Outgoing]:
        """Refuse a message of a site that is no member any more."""
        outgoing = self._let_go(site, now) if site in self.rounds.members else []
        self._refuse(site, site, reason, now)
        if isinstance(message, Update):
            outgoing += self._to(
                site, Receipt(message.round_number, False, reason[:400], False, message.mark)
            )
        return outgoing

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
                return self._status(site, message, now)
            case RenewalRequest() if self._register is not None:
                self.renewal_requests[site] = message.certificate_request
                return []
            case _:
                raise MessageError(f"{type(message).__name__} is not for the aggregator")

    def _status(self, site: str, status: Status, now: float) -> list[Outgoing]:
        """Believe the latest that a site says of itself; an old copy says nothing."""
        if not self._members.note(site, status.moment):
            return []
        self._holds(site, status.version)
        return self._is_there(site, now) if status.online else self._is_gone(site, now)

    def _is_there(self, site: str, now: float) -> list[Outgoing]:
        """Renew a lease, for something that nobody but the site can have sent now."""
        return self._advance(SiteHeard(site), now) if self._members.takes_part(site) else []

    def _is_gone(self, site: str, now: float) -> list[Outgoing]:
        return self._advance(SiteLeft(site), now) if self._members.takes_part(site) else []

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
            if (found := self._roster_blocks(request)) is not None:
                return self._to(site, *found)
            return self._to(site, *self.global_head.blocks(request.object_digest, request.missing))
        self._holds(site, request.have_version)
        outgoing: list[Outgoing] = []
        for answer in self.global_head.catch_up(request.have_version):
            outgoing += self._to(site, answer, *self.global_head.blocks_behind(answer))
        return outgoing

    def _most_samples(self, site: str) -> int | None:
        return None if self._register is None else self._register.most_samples(site)

    def _roster_blocks(self, request: BlockRequest) -> list[Block] | None:
        if self._register is None:
            return None
        largest = self.global_head.maximum_message_bytes
        return self._register.blocks(request.object_digest, request.missing, largest)

    def _holds(self, site: str, version: int) -> None:
        """Note the newest version that a member holds: one above ours shows that state was lost here."""
        self.versions_held[site] = version
        self._recovery.tell(site, version, self.global_head.version)

    def _adopt(self, evidence: Evidence | None, now: float) -> list[Outgoing]:
        """Go on from the state that a member proved, when it is newer than ours."""
        if evidence is None:
            return []
        keys: tuple[bytes, ...] = (self.plan.aggregator_key,)
        if self._register is not None:
            keys = self._register.roster.coordinator_keys
        plan = proven_plan(evidence, self._settings.name, keys)
        if plan.identity != self.plan.identity:
            raise MessageError(
                f"it follows run {plan.number}, this aggregator's state is of run {self.plan.number}; "
                "restore a newer backup, or begin another run: fedmedclip aggregator --new-run"
            )
        version, head = proven_head(evidence, plan, self.global_head.specification, keys)
        if version <= self.global_head.version:
            return []
        if plan.revision > self.plan.revision:
            # A site may not have followed a rotation of the key yet.
            self.plan = msgspec.structs.replace(plan, aggregator_key=self.plan.aggregator_key)
            self._store.revise(self.plan)
            self.global_head.rounds = plan.rounds
            self.rounds.settings = self._round_settings()
        self.global_head.adopt(version, head)
        self._intake.clear()
        self._recovery.over(version)
        log.warning("took version %d back from a site that had it; going on from there", version)
        advanced = self._advance(HeadAdvanced(version), now)
        return self.opening() + advanced

    def _join(self, site: str, envelope: Envelope, join: Join, now: float) -> list[Outgoing]:
        refused = self._members.is_of_another(site, join)
        reason = self._members.reason_to_refuse(site, join, self.plan.bundle_digest)
        latest = self._members.latest(site, join.public_key)
        sender = STRANGERS if latest is None else site
        # Whoever is admitted is a member from then on: no newcomer needs a share of what strangers may send.
        admitted = latest is None and not reason and not join.cannot
        if not admitted and self.floods.drops(sender, "joins", now):
            return []
        envelope.verify(join.public_key, self.plan.identity)
        if not admitted:
            self.floods.take(sender, "joins", now)
        if latest is not None and not moments.is_later(join.moment, latest):
            return self._answer_old(site, join, latest, reason)
        if latest is not None:
            self._members.note(site, join.moment)
        if join.cannot and not refused:
            self._members.note_unable(site, join)
            return self._advance(SiteLeft(site), now) if site in self.rounds.members else []
        if reason:
            self._warn(sender, now, "%s may not join: %s", site, reason)
            return self._answer_join(site, join, reason)
        return self._answer_join(site, join) + self._admit(site, join, now)

    def _answer_join(
        self, site: str, join: Join, reason: str = "", latest: Moment | None = None
    ) -> list[Outgoing]:
        answer = JoinAnswer(
            fingerprint(join.public_key), not reason, reason[:400], join.moment, latest, self.plan.revision
        )
        return self._to(site, answer)

    def _answer_old(self, site: str, join: Join, latest: Moment, reason: str) -> list[Outgoing]:
        """Answer a copy of an earlier Join, which changes nothing.

        The very last is answered as it was: the broker delivers twice. To an earlier one is said what came
        later: a site that was restored from a backup, and whose clock stands in the past, learns by it.
        """
        if join.moment == latest:
            return [] if join.cannot else self._answer_join(site, join, reason)
        old = "this site has said something later than this request; it is an old copy, or it was restored"
        return self._answer_join(site, join, old, latest)

    def _admit(self, site: str, join: Join, now: float) -> list[Outgoing]:
        self._members.admit(site, join)
        self._holds(site, join.version)
        drawn_before = self.global_head.drawn_below
        advanced = self._advance(SiteJoined(site), now)
        drawn_below = self.global_head.drawn_below
        called: list[Outgoing] = []
        if drawn_below is not None and drawn_below == drawn_before and self.rounds.drawn(site):
            # It may have been called after the announcement that it reads at the broker.
            called = self._to(site, self.global_head.call())
        return [*called, *self._repeat_plan(join, now), *advanced]

    def _repeat_plan(self, join: Join, now: float) -> list[Outgoing]:
        """Publish the plan again for a site that knows an earlier revision, from an old copy."""
        said = self._plan_repeated_at
        known = join.revision >= self.plan.revision
        if known or (said is not None and now - said < _REPEAT_PLAN_SECONDS):
            return []
        self._plan_repeated_at = now
        return self.opening()[:1]

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
        drawn, before = self._was_drawn(site, update.round_number), self._intake.standing(site)
        if (why := self.quarantined.get(site)) is not None:
            return self._settle(site, Verdict(update.round_number, update.mark, _why(why)), before, now)
        verdict = self._intake.update(site, update, self._terms(), now, drawn=drawn)
        return self._settle(site, verdict, before, now)

    def _was_drawn(self, site: str, round_number: int) -> bool:
        if round_number == self.global_head.version + 1:
            return self.rounds.drawn(site)
        drawn_below = self._store.drawn_below(round_number)
        return drawn_below is None or lot_of(self.plan.seed, site, round_number) < drawn_below

    def _block(self, site: str, block: Block, now: float) -> list[Outgoing]:
        if (evidence := self._recovery.take(site, block, now)) is not None:
            return self._adopt(evidence, now)
        if site in self.quarantined:
            return []
        before = self._intake.standing(site)
        return self._settle(site, self._intake.block(site, block, self._terms(), now), before, now)

    def _settle(self, site: str, verdict: Verdict | None, before: object, now: float) -> list[Outgoing]:
        """Tell a site what became of its update, and the round of what it changes there.

        `before` is how the intake stood before what came: a copy of what is here already shows no presence.
        """
        new = self._intake.standing(site) != before
        return (self._is_there(site, now) if new else []) + self._conclude(site, verdict, now)

    def _conclude(self, site: str, verdict: Verdict | None, now: float) -> list[Outgoing]:
        if verdict is None:
            return []
        number, refusal = verdict.round_number, verdict.refusal
        if refusal:
            log.warning("refused the update of %s for round %d: %s", site, number, refusal)
        receipt = self._to(site, Receipt(number, not refusal, refusal[:400], verdict.closed, verdict.mark))
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
                self.global_head.aggregate(round_number, self._weighing())
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

    def _weighing(self) -> Weighing:
        return Weighing(self._settings.weighting, self._settings.maximum_share, self._most_samples)

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


def _shown(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def _why(quarantine: Quarantine) -> str:
    """Return what a site and the operator read."""
    return f"in quarantine: {quarantine.reason or 'the coordinator gave no reason'}"
