"""The states that a party may be in, by number, and what each event makes of them: computed once.

A party knows nothing of the others but what it receives, and its clock is its own. So what an event does to
it depends on its own state alone, however many states of the whole federation that one is part of: the code
runs once for each pair of state and event, and a search through all that may happen only looks it up.
"""

from dataclasses import dataclass

from benchmarks.liveness.parties import AGGREGATOR, FEDERATION, Counted, Kept, Parties
from fedmedclip.aggregator.commands import Command, carry_out
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import Message, Moment, Receipt


@dataclass(frozen=True)
class Received:
    """A message arrived."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class Waited:
    """So many seconds went by; nobody had a look."""

    seconds: float


@dataclass(frozen=True)
class Ticked:
    """The party had a look at what is due."""


@dataclass(frozen=True)
class Restarted:
    """Its process was killed and started again, with another database (its number) if one is given."""

    database: int | None = None


@dataclass(frozen=True)
class Reconnected:
    """Its connection was lost, and is there again."""


@dataclass(frozen=True)
class Commanded:
    """The coordinator gave the aggregator a command, its `number`-th."""

    command: Command
    number: int


@dataclass(frozen=True)
class Decided:
    """A site's operator approved the newest plan, or refused it, and the site had a look."""

    approved: bool


Event = Received | Waited | Ticked | Restarted | Reconnected | Commanded | Decided


@dataclass(frozen=True)
class Sent:
    """A sealed message that the party publishes."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True)
class After:
    """What an event leads to: the next state and what is sent.

    `told` has the round of which a receipt came, and whether the site takes its update for accepted.
    """

    state: int
    sent: tuple[Sent, ...] = ()
    told: tuple[int, bool] | None = None


@dataclass(frozen=True)
class PartyState:
    """A party put away, and what can be seen of it from outside.

    `clock` is its own clock's reading. `status` is the sealed status that it owes the others, None for the
    aggregator and for a site that has not joined; `last_word` is the moment of its last will. `digest` is
    that of its newest head; `counted` are the updates of which the aggregator's is made; `owes` is the round
    of which a site owes an update. `waits_for` names what only a person can end: sites in quarantine and a
    pause ("") of the aggregator, at a site its own operator's approval ("").
    """

    party: str
    kept: Kept
    clock: float
    database: int
    version: int
    finished: bool
    digest: bytes
    status: bytes | None
    counted: Counted
    owes: int | None
    last_word: Moment
    waits_for: tuple[str, ...]


class PartyStates:
    """All states that any party was seen in."""

    def __init__(self, parties: Parties) -> None:
        self._parties = parties
        self.states: list[PartyState] = []
        self._numbers: dict[bytes, int] = {}
        self._databases: dict[bytes, int] = {}
        self._contents: list[bytes] = []
        self._after: dict[tuple[int, Event], After] = {}
        self._live: dict[str, int] = {}

    def first(self, party: str) -> After:
        """Return the state in which a party has just started, and what it sends."""
        return After(self._put_away(party, 0.0), self._opening(party))

    def after(self, number: int, event: Event) -> After:
        """Return what an event leads to from a state."""
        found = self._after.get((number, event))
        if found is None:
            found = self._after[number, event] = self._play(number, event)
        return found

    def _play(self, number: int, event: Event) -> After:
        state, parties = self.states[number], self._parties
        party, now = state.party, state.clock
        self._take_up(number)
        sent: tuple[Sent, ...] = ()
        told: tuple[int, bool] | None = None
        match event:
            case Waited(seconds):
                now += seconds
            case Received(topic, payload) if party == AGGREGATOR:
                sent = self._from_aggregator(parties.coordinator.receive(topic, payload, now))
            case Received(topic, payload):
                owed = parties.states[party].outgoing_update()
                sent = self._from_site(party, parties.agents[party].receive(topic, payload, now))
                is_receipt = isinstance(open_envelope(payload, topic).message, Receipt)
                if is_receipt and owed is not None and parties.states[party].outgoing_update() is None:
                    told = (owed.round_number, parties.took_for_accepted(party, owed.round_number))
            case Ticked() if party == AGGREGATOR:
                sent = self._from_aggregator(parties.coordinator.tick(now))
            case Ticked():
                sent = self._from_site(party, parties.agents[party].tick(now))
            case Restarted(database):
                if database is not None:
                    parties.replace_database(party, self._contents[database])
                if party == AGGREGATOR:
                    parties.start_aggregator(now)
                else:
                    parties.start_site(party)
                sent = self._opening(party)
            case Commanded(command, number):
                parties.commands_given = number
                try:
                    sent = self._from_aggregator(carry_out(command, parties.coordinator, now)[1])
                except InvalidInputError:
                    # The coordinator is told why it cannot be done, and nothing is changed.
                    sent = ()
            case Decided(approved):
                parties.decide(party, approved=approved)
                sent = self._from_site(party, parties.agents[party].tick(now))
            case Reconnected():
                if party != AGGREGATOR:
                    parties.agents[party].moments.connect()
                    parties.agents[party].connected()
                sent = self._opening(party)
        return After(self._put_away(party, now), sent, told)

    def _take_up(self, number: int) -> None:
        state = self.states[number]
        if self._live.pop(state.party, None) != number:
            self._parties.take_up(state.party, state.kept)

    def _put_away(self, party: str, now: float) -> int:
        """Return the number of the party's present state: that of an earlier one where they behave alike."""
        parties = self._parties
        essence = party.encode() + parties.essence(party, now)
        number = self._numbers.get(essence)
        if number is not None:
            return number
        kept = parties.keep(party)
        name = parties.essence_of_database(party)
        if name not in self._databases:
            self._databases[name] = len(self._contents)
            self._contents.append(kept.database)
        number = self._numbers[essence] = len(self.states)
        self.states.append(self._seen(party, kept, now, self._databases[name]))
        self._live[party] = number
        return number

    def _seen(self, party: str, kept: Kept, now: float, database: int) -> PartyState:
        parties = self._parties
        if party == AGGREGATOR:
            head = parties.coordinator.global_head
            counted = parties.counted.get(head.digest, ())
            waits_for = (*parties.coordinator.quarantined, *([""] if parties.coordinator.plan.paused else []))
            return PartyState(
                party, kept, now, database, head.version, head.finished, head.digest, None, counted, None,
                Moment(1, 0, 0), waits_for,
            )  # fmt: skip
        agent, owed = parties.agents[party], parties.states[party].outgoing_update()
        topic = topics.status(FEDERATION, party)
        status = seal(agent.status(online=True), topic, parties.keys[party], NO_IDENTITY)
        return PartyState(
            party, kept, now, database, agent.version, agent.finished,
            digest=head_digest(agent._run.follower.head) if agent._run.follower else b"",
            status=status if agent.joined else None,
            counted=(),
            owes=None if owed is None else owed.round_number,
            last_word=agent.moments.last_word(),
            waits_for=("",) if parties.is_undecided(party) else (),
        )  # fmt: skip

    def _opening(self, party: str) -> tuple[Sent, ...]:
        """Return what a party sends on a new connection."""
        return self._from_aggregator(self._parties.coordinator.opening()) if party == AGGREGATOR else ()

    def _from_aggregator(self, outgoing: list[Outgoing]) -> tuple[Sent, ...]:
        key, identity = self._parties.key, self._parties.coordinator.plan.identity
        return tuple(
            Sent(item.topic, seal(item.message, item.topic, key, identity), item.retain) for item in outgoing
        )

    def _from_site(self, site: str, messages: list[Message]) -> tuple[Sent, ...]:
        topic, key = topics.up(FEDERATION, site), self._parties.keys[site]
        identity = self._parties.agents[site].plan_identity
        return tuple(Sent(topic, seal(message, topic, key, identity), False) for message in messages)
