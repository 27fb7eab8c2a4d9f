"""A small federation with its network: what may happen next in a state, and the state after it.

The network is the model: one queue, a broker that hands out retained messages and last wills, and a clock
that moves only when nothing is on its way. Everything else is the code (`parties`).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.liveness.parties import AGGREGATOR, FEDERATION, Kept, Parties
from fedmedclip.aggregator.coordinator import Outgoing
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import Message, Receipt, Status, Update
from fedmedclip.protocol.signature import fingerprint

HEARTBEAT_SECONDS = 60.0
WAIT_SECONDS = 21.0
FAULTS = ("lose", "repeat", "delay", "crash", "restore", "refuse", "hurry", "broker")


@dataclass(frozen=True)
class Letter:
    """A message on its way."""

    receiver: str
    topic: str
    payload: bytes


@dataclass(frozen=True)
class State:
    """Everything: the parties, what is on its way, what the broker keeps, and the faults that may still come.

    `said` has the time of each site's last status, `told` what each site heard last of each of its rounds,
    `backups` copies of the aggregator's database by the version that they hold.
    """

    parties: dict[str, Kept]
    essences: dict[str, bytes]
    queue: tuple[Letter, ...]
    retained: dict[str, bytes]
    said: dict[str, float]
    told: dict[tuple[str, int], bool]
    backups: dict[int, bytes]
    faults: dict[str, int]
    now: float

    def essence(self) -> bytes:
        """Return what tells it apart from other states, whenever it comes about."""
        digest = hashlib.blake2b(digest_size=16)
        for party in self.parties:
            digest.update(self.essences[party])
        ages = {site: min(self.now - said, HEARTBEAT_SECONDS) for site, said in self.said.items()}
        kept = sorted((version, hashlib.sha256(data).digest()) for version, data in self.backups.items())
        rest = (self.queue, sorted(self.retained.items()), sorted(ages.items()), sorted(self.told.items()))
        digest.update(repr((rest, kept, sorted(self.faults.items()))).encode())
        return digest.digest()


@dataclass(frozen=True)
class Step:
    """What happens next: a fault's name or "go", and to whom or which."""

    kind: str
    which: str | int = 0


class Network:
    """Moves the parties from state to state."""

    def __init__(self, parties: Parties, *, reach: int) -> None:
        """With `reach`, a message may be overtaken by so many others."""
        self._parties = parties
        self._reach = reach
        self._names = (AGGREGATOR, *parties.keys)

    def beginning(self, faults: dict[str, int]) -> State:
        """Return the state in which everybody has just started."""
        parties = self._parties
        kept = {name: parties.keep(name) for name in self._names}
        self._live = dict(kept)
        state = State(kept, {}, (), {}, dict.fromkeys(parties.keys, -1e9), {}, {}, faults, 0.0)
        self._begin(state)
        self._backups[0] = kept[AGGREGATOR].database
        self._to_sites(parties.coordinator.opening())
        return self._end(set(self._names))

    def steps(self, state: State) -> Iterator[Step]:
        """Yield all that may happen, first what a network without faults does."""
        yield Step("go")
        left, queue = state.faults, state.queue
        if left["all"] == 0:
            return
        if queue and left["lose"] and not queue[0].topic.endswith("/plan"):
            yield Step("lose")
        if queue and left["repeat"]:
            yield Step("repeat")
        if left["delay"]:
            for index in range(1, min(self._reach, len(queue) - 1) + 1):
                yield Step("delay", index)
        if left["crash"]:
            for name in self._names:
                yield Step("crash", name)
        if left["restore"]:
            for version in state.backups:
                yield Step("restore", version)
        if queue and left["refuse"] and queue[0].receiver == AGGREGATOR and self._update(queue[0]):
            yield Step("refuse")
        if queue and left["hurry"]:
            yield Step("hurry")
        if left["broker"]:
            yield Step("broker")

    def take(self, state: State, step: Step) -> State:
        """Return the state after a step."""
        self._begin(state)
        if step.kind != "go":
            for name in (step.kind, "all"):
                self._faults[name] -= 1
        touched: set[str] = set()
        queue = self._queue
        match step.kind:
            case "go" if queue:
                touched |= self._deliver(queue.pop(0))
            case "go":
                touched |= self._wait()
            case "lose":
                queue.pop(0)
            case "repeat":
                queue.append(queue[0])
                touched |= self._deliver(queue.pop(0))
            case "delay":
                assert isinstance(step.which, int)
                touched |= self._deliver(queue.pop(step.which))
            case "refuse":
                touched |= self._deliver(self._damaged(queue.pop(0)))
            case "hurry":
                self._now += WAIT_SECONDS
                touched |= self._tick()
            case "crash":
                touched |= self._crash(str(step.which))
            case "restore":
                assert isinstance(step.which, int)
                self._parties.replace_database(AGGREGATOR, self._backups[step.which])
                self._live.pop(AGGREGATOR, None)
                touched |= self._start_aggregator()
            case "broker":
                queue.clear()
                self._retained.clear()
                for site in self._parties.keys:
                    self._load(site)
                    self._parties.agents[site].connected()
                self._load(AGGREGATOR)
                self._to_sites(self._parties.coordinator.opening())
                touched |= set(self._names)
        return self._end(touched)

    def ended(self, state: State) -> bool:
        """Whether the run is over and everybody holds the same last head."""
        for name in self._names:
            self._load_kept(name, state.parties[name])
        head, agents = self._parties.coordinator.global_head, self._parties.agents.values()
        digests = {agent._follower and head_digest(agent._follower.head) for agent in agents}
        return (
            not state.queue
            and head.finished
            and all(agent.finished for agent in agents)
            and digests == {head.digest}
        )

    def counts_twice(self, state: State) -> bool:
        """Whether the newest head is made of one update twice, or of one that its site was told does not
        count, and so gives what it owes again.
        """
        self._load_kept(AGGREGATOR, state.parties[AGGREGATOR])
        counted = self._parties.counted.get(self._parties.coordinator.global_head.digest, ())
        updates = {(site, digest) for site, _, digest in counted}
        given_again = any(not state.told.get((site, number), True) for site, number, _ in counted)
        return len(updates) != len(counted) or given_again

    def _begin(self, state: State) -> None:
        self._state = state
        # Ticked twice in one step, a party goes on from where the first tick left it.
        self._ticked = False
        self._queue, self._retained, self._now = list(state.queue), dict(state.retained), state.now
        self._said, self._told = dict(state.said), dict(state.told)
        self._backups, self._faults = dict(state.backups), dict(state.faults)

    def _end(self, touched: set[str]) -> State:
        kept, essences = dict(self._state.parties), dict(self._state.essences)
        moved = self._now != self._state.now
        for name in self._names:
            if name in touched:
                kept[name] = self._live[name] = self._parties.keep(name)
            if name in touched or moved or name not in essences:
                self._load_kept(name, kept[name])
                essences[name] = self._parties.essence(name, self._now)
        if AGGREGATOR in touched and self._parties.coordinator.global_head.version == 1:
            self._backups.setdefault(1, kept[AGGREGATOR].database)
        return replace(
            self._state, parties=kept, essences=essences, queue=tuple(self._queue), now=self._now,
            retained=self._retained, said=self._said, told=self._told, backups=self._backups,
            faults=self._faults,
        )  # fmt: skip

    def _load(self, name: str) -> None:
        self._load_kept(name, self._state.parties[name])
        # It will be changed: what is live is no longer what was put away.
        self._live.pop(name, None)

    def _load_kept(self, name: str, kept: Kept) -> None:
        if self._live.get(name) is not kept:
            self._parties.take_up(name, kept)
            self._live[name] = kept

    def _deliver(self, letter: Letter) -> set[str]:
        receiver, parties = letter.receiver, self._parties
        self._load(receiver)
        if receiver == AGGREGATOR:
            self._to_sites(parties.coordinator.receive(letter.topic, letter.payload, self._now))
        else:
            message = open_envelope(letter.payload, letter.topic).message
            open_before = parties.states[receiver].outgoing_update() if isinstance(message, Receipt) else None
            self._to_aggregator(
                receiver, parties.agents[receiver].receive(letter.topic, letter.payload, self._now)
            )
            if (
                isinstance(message, Receipt)
                and open_before
                and not parties.states[receiver].outgoing_update()
            ):
                self._told[receiver, message.round_number] = message.accepted
            self._publish_status(receiver)
        return {receiver}

    def _wait(self) -> set[str]:
        """Nothing is on its way: everybody has a look, and time passes until somebody speaks."""
        for seconds in (0.0, WAIT_SECONDS):
            self._now += seconds
            touched = self._tick()
            if self._queue:
                break
        return touched

    def _tick(self) -> set[str]:
        if not self._ticked:
            for name in self._names:
                self._load(name)
        self._ticked = True
        self._to_sites(self._parties.coordinator.tick(self._now))
        for site, agent in self._parties.agents.items():
            self._to_aggregator(site, agent.tick(self._now))
            self._publish_status(site)
        return set(self._names)

    def _crash(self, name: str) -> set[str]:
        self._load(name)
        if name == AGGREGATOR:
            return self._start_aggregator()
        parties, topic = self._parties, topics.status(FEDERATION, name)
        will = Status(fingerprint(parties.keys[name].public_key), False, -1)
        self._status(name, seal(will, topic, parties.keys[name], NO_IDENTITY))
        parties.start_site(name)
        self._said[name] = -1e9
        for topic, payload in sorted(self._retained.items()):
            if "/status/" not in topic:
                self._queue.append(Letter(name, topic, payload))
        return {name}

    def _start_aggregator(self) -> set[str]:
        self._parties.start_aggregator(self._now)
        for topic, payload in sorted(self._retained.items()):
            if "/status/" in topic:
                self._queue.append(Letter(AGGREGATOR, topic, payload))
        self._to_sites(self._parties.coordinator.opening())
        return {AGGREGATOR}

    def _to_sites(self, outgoing: list[Outgoing]) -> None:
        parties = self._parties
        for item in outgoing:
            payload = seal(item.message, item.topic, parties.key, parties.coordinator.plan.identity)
            if item.retain:
                self._retained[item.topic] = payload
            for site in parties.keys:
                if "/down/" not in item.topic or topics.site_of(item.topic) == site:
                    self._queue.append(Letter(site, item.topic, payload))

    def _to_aggregator(self, site: str, messages: list[Message]) -> None:
        topic, identity = topics.up(FEDERATION, site), self._parties.agents[site].plan_identity
        for message in messages:
            payload = seal(message, topic, self._parties.keys[site], identity)
            self._queue.append(Letter(AGGREGATOR, topic, payload))

    def _publish_status(self, site: str) -> None:
        agent = self._parties.agents[site]
        if not agent.joined:
            return
        topic = topics.status(FEDERATION, site)
        payload = seal(agent.status(online=True), topic, self._parties.keys[site], NO_IDENTITY)
        due = self._now - self._said[site] >= HEARTBEAT_SECONDS
        if due or self._retained.get(topic) != payload:
            self._said[site] = self._now
            self._status(site, payload)

    def _status(self, site: str, payload: bytes) -> None:
        topic = topics.status(FEDERATION, site)
        self._retained[topic] = payload
        self._queue.append(Letter(AGGREGATOR, topic, payload))

    def _update(self, letter: Letter) -> Update | None:
        message = open_envelope(letter.payload, letter.topic).message
        return message if isinstance(message, Update) else None

    def _damaged(self, letter: Letter) -> Letter:
        """Return the update with a payload that nobody can decode, signed by its site."""
        update, site = self._update(letter), topics.site_of(letter.topic)
        assert update is not None
        damaged = Update(update.round_number, update.samples, b"no head")
        identity = self._parties.plan.identity
        return replace(letter, payload=seal(damaged, letter.topic, self._parties.keys[site], identity))
