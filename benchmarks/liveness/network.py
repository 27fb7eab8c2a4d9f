"""A small federation with its network: what may happen next in a state, and the state after it.

The network is the model: one queue, a broker that hands out retained messages and last wills, and a clock
that moves only when nothing is on its way. Everything else is the code (`parties`), whose states and messages
have numbers here (`party_states`).
"""

import hashlib
import marshal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from benchmarks.liveness.clocks import HEARTBEAT_SECONDS, WAIT_SECONDS
from benchmarks.liveness.parties import AGGREGATOR, FEDERATION, Parties
from benchmarks.liveness.party_states import (
    After,
    Commanded,
    Decided,
    Event,
    PartyState,
    PartyStates,
    Received,
    Reconnected,
    Restarted,
    Sent,
    Ticked,
    Waited,
)
from fedmedclip.aggregator.commands import (
    AddRounds,
    Command,
    Drop,
    End,
    LeaveOut,
    Pause,
    PutInQuarantine,
    Release,
    Resume,
    RollBack,
)
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.messages import Receipt, Status, Update
from fedmedclip.protocol.signature import fingerprint

AT_THE_AGGREGATOR = 0
# What the people do; see `Network._relent` for what they take back after a while.
COMMANDS = ("pause", "end", "more", "back")
COMMANDS_OF_A_SITE = ("leave-out", "drop", "quarantine", "refuse-plan")


@dataclass(frozen=True)
class Letter:
    """A message on its way to the party with this number, which is 0 for the aggregator."""

    receiver: int
    topic: str
    payload: bytes


class State(NamedTuple):
    """Everything: the parties, what is on its way, what the broker keeps, and how much may still come.

    `parties` are numbers of states, the aggregator's first; `queue` and `retained` numbers of letters, the
    latter without receiver and by topic. `ages` says how long ago each site last said its status, at most
    the time after which it is said again; `told` has site, round and whether the site takes its update for
    accepted, where it owes it no longer; `backups` are the databases of each party by the version they hold;
    `refused` the letters that are refused whenever they come, until their site has heard of it.
    """

    parties: tuple[int, ...]
    queue: tuple[int, ...]
    retained: tuple[tuple[str, int], ...]
    ages: tuple[float, ...]
    told: tuple[tuple[int, int, bool], ...]
    backups: tuple[tuple[int, int, int], ...]
    refused: tuple[int, ...]
    faults: int
    commands: int

    def essence(self) -> bytes:
        """Return what tells it apart from other states, 16 bytes."""
        # Version 2 of the format: later ones depend on which equal values are one object.
        return hashlib.blake2b(marshal.dumps(tuple(self), 2), digest_size=16).digest()


@dataclass(frozen=True)
class Step:
    """What happens next: a fault's name or "go", and to whom or which."""

    kind: str
    which: int = 0


class Network:
    """Moves the parties from state to state."""

    def __init__(self, parties: Parties, *, reach: int) -> None:
        """With `reach`, a message may be overtaken by so many others."""
        self._parties = parties
        self._most_commands = 0
        self._reach = reach
        self._names = (AGGREGATOR, *parties.keys)
        self._known = PartyStates(parties)
        self._letters: list[Letter] = []
        self._numbers: dict[Letter, int] = {}
        self._true_marks: dict[bytes, bytes] = {}

    def beginning(self, faults: int, commands: int = 0) -> State:
        """Return the state in which everybody has just started; so many faults and commands may come."""
        firsts = [self._known.first(name) for name in self._names]
        self._most_commands = commands
        ages = (HEARTBEAT_SECONDS,) * (len(self._names) - 1)
        self._begin(State((), (), (), ages, (), (), (), faults, commands))
        self._at = [first.state for first in firsts]
        self._publish(firsts[AT_THE_AGGREGATOR].sent)
        return self._end()

    def steps(self, state: State) -> Iterator[Step]:
        """Yield all that may happen, first what a network without faults does."""
        yield Step("go")
        if state.commands:
            yield from (Step(command) for command in COMMANDS)
            for site in range(1, len(self._names)):
                yield from (Step(command, site) for command in COMMANDS_OF_A_SITE)
        if state.faults == 0:
            return
        if state.queue:
            oldest = self._letters[state.queue[0]]
            if not oldest.topic.endswith("/plan"):
                yield Step("lose")
            yield Step("repeat")
            for index in range(1, min(self._reach, len(state.queue) - 1) + 1):
                yield Step("delay", index)
            if oldest.receiver == AT_THE_AGGREGATOR and self._update(oldest):
                yield Step("refuse")
            yield Step("hurry")
        for party in range(len(self._names)):
            yield Step("crash", party)
        for party, version, _ in state.backups:
            yield (
                Step("restore", version)
                if party == AT_THE_AGGREGATOR
                else Step(f"take-back-{version}", party)
            )
        yield Step("broker")

    def take(self, state: State, step: Step) -> State:
        """Return the state after a step."""
        self._begin(state)
        queue = self._queue
        is_command = step.kind in COMMANDS + COMMANDS_OF_A_SITE
        self._faults -= step.kind != "go" and not is_command
        self._commands -= is_command
        match step.kind:
            case "go" if queue:
                self._deliver(queue.pop(0))
            case "go":
                self._wait()
            case "lose":
                queue.pop(0)
            case "repeat":
                queue.append(queue[0])
                self._deliver(queue.pop(0))
            case "delay":
                self._deliver(queue.pop(step.which))
            case "refuse":
                self._refused.add(queue[0])
                self._deliver(queue.pop(0))
            case "hurry":
                self._let_pass(WAIT_SECONDS)
                self._tick()
            case "crash" if step.which == AT_THE_AGGREGATOR:
                self._restart_aggregator(None)
            case "crash":
                self._crash(step.which, None)
            case "restore":
                self._restart_aggregator(self._backups[AT_THE_AGGREGATOR, step.which])
            case "take-back-0" | "take-back-1":
                version = int(step.kind[-1])
                self._crash(step.which, self._backups[step.which, version])
            case _ if is_command:
                self._command(step)
            case "broker":
                queue.clear()
                self._retained.clear()
                for party in reversed(range(len(self._names))):
                    self._publish(self._play(party, Reconnected()).sent)
        return self._end()

    def ended(self, state: State) -> bool:
        """Whether the run is over and everybody holds the same last head."""
        parties = [self._known.states[number] for number in state.parties]
        return (
            not state.queue
            and all(party.finished for party in parties)
            and len({party.digest for party in parties}) == 1
        )

    def counts_twice(self, state: State) -> bool:
        """Whether the newest head is made of one update twice, or of one that its site takes for refused,
        so that it gives what was in it again.
        """
        counted = self._known.states[state.parties[AT_THE_AGGREGATOR]].counted
        updates = {(site, digest) for site, _, digest in counted}
        told = {(self._names[party], number): counts for party, number, counts in state.told}
        given_again = any(not told.get((site, number), True) for site, number, _ in counted)
        return len(updates) != len(counted) or given_again

    @property
    def party_states(self) -> int:
        """How many states the parties were in, each for itself."""
        return len(self._known.states)

    def _begin(self, state: State) -> None:
        self._at, self._queue, self._retained = list(state.parties), list(state.queue), dict(state.retained)
        self._ages = list(state.ages)
        self._backups = {(party, version): number for party, version, number in state.backups}
        self._faults, self._commands = state.faults, state.commands
        self._refused = set(state.refused)
        self._told = {(party, number): counts for party, number, counts in state.told}

    def _end(self) -> State:
        for party in range(len(self._names)):
            now = self._party(party)
            if now.version in (0, 1):
                self._backups.setdefault((party, now.version), now.database)
        return State(
            tuple(self._at),
            tuple(self._queue),
            tuple(sorted(self._retained.items())),
            tuple(self._ages),
            tuple(sorted((*key, counts) for key, counts in self._told.items())),
            tuple(sorted((*key, number) for key, number in self._backups.items())),
            tuple(sorted(self._refused)),
            self._faults,
            self._commands,
        )

    def _party(self, party: int) -> PartyState:
        return self._known.states[self._at[party]]

    def _play(self, party: int, event: Event) -> After:
        after = self._known.after(self._at[party], event)
        self._at[party] = after.state
        if (owes := self._party(party).owes) is not None:
            self._told.pop((party, owes), None)
        return after

    def _deliver(self, number: int) -> None:
        letter = self._letters[self._damaged(number) if number in self._refused else number]
        after = self._play(letter.receiver, Received(letter.topic, letter.payload))
        self._publish(tuple(self._as_of_the_true_update(sent) for sent in after.sent))
        if after.told is not None:
            round_number, counts = after.told
            self._told[letter.receiver, round_number] = counts
            self._forgive(topics.up(FEDERATION, self._names[letter.receiver]))
        self._publish_status(letter.receiver)

    def _forgive(self, topic: str) -> None:
        """What a site sends from now on is good again; what is on its way is not."""
        over = {number for number in self._refused if self._letters[number].topic == topic}
        self._queue = [self._damaged(number) if number in over else number for number in self._queue]
        self._refused -= over

    def _wait(self) -> None:
        """Nothing is on its way: everybody has a look, and time passes until somebody speaks."""
        self._tick()
        if not self._queue:
            self._let_pass(WAIT_SECONDS)
            self._relent()
            self._tick()

    def _command(self, step: Step) -> None:
        """Let the people do something."""
        if step.kind == "refuse-plan":
            self._decide(step.which, approved=False)
            return
        site = self._names[step.which]
        commands: dict[str, Command] = {
            "pause": Pause(), "end": End(), "more": AddRounds(1), "back": RollBack(0),
            "leave-out": LeaveOut(site), "drop": Drop(site), "quarantine": PutInQuarantine(site),
        }  # fmt: skip
        self._tell_aggregator(commands[step.kind], 0)

    def _relent(self) -> None:
        """Let the people end what only they can: a pause, a quarantine, a plan that is not approved."""
        for name in self._party(AT_THE_AGGREGATOR).waits_for:
            self._tell_aggregator(Release(name) if name else Resume(), 1)
        for site in range(1, len(self._names)):
            if self._party(site).waits_for:
                self._decide(site, approved=True)

    def _tell_aggregator(self, command: Command, later: int) -> None:
        number = 2 * (self._most_commands - self._commands) + later
        self._publish(self._play(AT_THE_AGGREGATOR, Commanded(command, number)).sent)

    def _decide(self, site: int, *, approved: bool) -> None:
        self._publish(self._play(site, Decided(approved)).sent)
        self._publish_status(site)

    def _let_pass(self, seconds: float) -> None:
        for party in range(len(self._names)):
            self._play(party, Waited(seconds))
        self._ages = [min(age + seconds, HEARTBEAT_SECONDS) for age in self._ages]

    def _tick(self) -> None:
        for party in range(len(self._names)):
            self._publish(self._play(party, Ticked()).sent)
            self._publish_status(party)

    def _crash(self, site: int, database: int | None) -> None:
        name, parties = self._names[site], self._parties
        topic, key = topics.status(FEDERATION, name), parties.keys[name]
        will = Status(fingerprint(key.public_key), False, -1, self._party(site).last_word)
        self._publish((Sent(topic, seal(will, topic, key, NO_IDENTITY), True),))
        self._play(site, Restarted(database))
        self._ages[site - 1] = HEARTBEAT_SECONDS
        self._hand_out(site, statuses=False)

    def _restart_aggregator(self, database: int | None) -> None:
        after = self._play(AT_THE_AGGREGATOR, Restarted(database))
        self._hand_out(AT_THE_AGGREGATOR, statuses=True)
        self._publish(after.sent)

    def _hand_out(self, party: int, *, statuses: bool) -> None:
        """Let the broker send a party what is retained."""
        for topic, number in sorted(self._retained.items()):
            if ("/status/" in topic) == statuses:
                self._send(party, topic, self._letters[number].payload)

    def _publish(self, messages: tuple[Sent, ...]) -> None:
        for message in messages:
            if message.retain:
                letter = Letter(-1, message.topic, message.payload)
                self._retained[message.topic] = self._number(letter)
            for receiver in self._receivers(message.topic):
                self._send(receiver, message.topic, message.payload)

    def _receivers(self, topic: str) -> list[int]:
        if "/up/" in topic or "/status/" in topic:
            return [AT_THE_AGGREGATOR]
        sites = range(1, len(self._names))
        return [site for site in sites if "/down/" not in topic or topics.site_of(topic) == self._names[site]]

    def _publish_status(self, party: int) -> None:
        """Say a site's status where it is another than the broker keeps, or where it is due again."""
        payload = self._party(party).status
        if payload is None:
            return
        topic = topics.status(FEDERATION, self._names[party])
        said = self._retained.get(topic)
        known = said is not None and self._letters[said].payload == payload
        if not known or self._ages[party - 1] >= HEARTBEAT_SECONDS:
            self._ages[party - 1] = 0.0
            self._publish((Sent(topic, payload, True),))

    def _send(self, receiver: int, topic: str, payload: bytes) -> None:
        self._queue.append(self._number(Letter(receiver, topic, payload)))

    def _number(self, letter: Letter) -> int:
        number = self._numbers.setdefault(letter, len(self._letters))
        if number == len(self._letters):
            self._letters.append(letter)
        return number

    def _update(self, letter: Letter) -> Update | None:
        message = open_envelope(letter.payload, letter.topic).message
        return message if isinstance(message, Update) else None

    def _damaged(self, number: int) -> int:
        """Return the update with a payload that nobody can decode, signed by its site."""
        letter = self._letters[number]
        update, site = self._update(letter), topics.site_of(letter.topic)
        assert update is not None
        # Each attempt has a damaged copy of its own.
        damaged = Update(update.round_number, update.samples, b"no head", update.attempt)
        self._true_marks[damaged.mark] = update.mark
        payload = seal(damaged, letter.topic, self._parties.keys[site], self._parties.plan.identity)
        return self._number(Letter(letter.receiver, letter.topic, payload))

    def _as_of_the_true_update(self, sent: Sent) -> Sent:
        """Let a receipt for a damaged update say that the true one is refused: it stands for that."""
        message = open_envelope(sent.payload, sent.topic).message
        if not isinstance(message, Receipt) or message.mark not in self._true_marks:
            return sent
        receipt = msgspec.structs.replace(message, mark=self._true_marks[message.mark])
        payload = seal(receipt, sent.topic, self._parties.key, self._parties.plan.identity)
        return Sent(sent.topic, payload, sent.retain)
