"""One federation in one process: the production coordinator and site agents, without broker and clock.

Every payload that a broker would carry is made, signed, verified and counted; it is handed over at once
instead of published. A site that sits a round out goes offline and its state rests on disk. When it comes
back it joins again and reads what it missed, as a real one does.
"""

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.coordinator import Coordinator, Outgoing
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.site.agent import Identity, SiteAgent
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.heads.head import NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.link.settings import SMALLEST_COMMON_LIMIT
from fedmedclip.protocol.messages import JoinAnswer, Message, Plan, Status, Update
from fedmedclip.protocol.signature import SigningKey
from fedmedclip.simulation.bandwidth.learner import CodecMeasurements, VirtualLearner
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

FEDERATION = "bench"
# The coordinator's clock stands still: here no round is ever late.
_NOW = 0.0
# How many sites' heads are in memory at once; the others' lie in their state files.
_RESIDENT_SITES = 32
# Joining, asking for missed blocks and training are one tick each; between them a site may have to wait.
_TICKS_PER_ROUND = 6
# The agents ask again for blocks that stay away this long.
_PATIENCE_SECONDS = ASK_AGAIN_SECONDS + 1


@dataclass(frozen=True)
class FederationPlan:
    """What a federation of the benchmark does. Codecs are names as in the aggregator's configuration."""

    method: str
    uplink_codec: str
    downlink_codec: str
    rounds: int
    seed: int
    participants: int
    settings: TrainingSettings


@dataclass
class _Connected:
    """A site that is online.

    `inbox` is what it has not received yet, `join_answer` what it was answered when it joined, `status` what
    it published last, `clock` its own monotonic clock in seconds.
    """

    site: VirtualSite
    inbox: deque[tuple[str, bytes]] = field(default_factory=deque)
    join_answer: bytes | None = None
    status: Status | None = None
    clock: float = 0.0


class Federation:
    """A federation whose states lie in `folder` (empty at first). Close it when done."""

    def __init__(self, plan: FederationPlan, pool: FeaturePool, folder: Path) -> None:
        self._plan = plan
        self._pool = pool
        self._folder = folder
        self._connected: dict[str, _Connected] = {}
        self._resident: OrderedDict[str, tuple[SiteAgent, SiteState]] = OrderedDict()
        self._retained: dict[str, bytes] = {}
        self._traffic = Traffic()
        self._measured_site: str | None = None
        self.measurements = CodecMeasurements()
        self._key = derived_key(plan.seed, "aggregator")
        self._announced = wire_plan(plan, pool, self._key)
        self._specification = shared_head_specification(
            plan.method, pool.embedding_size, len(pool.class_embeddings)
        )
        self._store = Store(folder / "aggregator.db", durable=False)
        self._coordinator = self._begin()
        self._publish(self._coordinator.opening())

    @property
    def head(self) -> NamedArrays:
        """The newest global head."""
        return self._specification.from_bytes(self._store.head().head)

    def play_round(self, round_number: int, participants: Iterable[VirtualSite]) -> Traffic:
        """Let the participants, and nobody else, make version `round_number`; return what travelled.

        Raises FedMedClipError when an update was refused.
        """
        self._traffic = Traffic()
        names = {site.name: site for site in participants}
        self._measured_site = next(iter(names))
        for name in [name for name in self._connected if name not in names]:
            self._leave(name)
        for name, site in names.items():
            if name not in self._connected:
                self._connect(site)
            self._train(name)
        if self._coordinator.global_head.version != round_number:
            raise FedMedClipError(
                f"round {round_number} with {self._plan.uplink_codec} did not close: an update was refused; "
                "the warning above says why"
            )
        return self._traffic

    def close(self) -> None:
        """Release all files."""
        for _, state in self._resident.values():
            state.close()
        self._resident.clear()
        self._store.close()

    def _begin(self) -> Coordinator:
        plan, pool = self._plan, self._pool
        head = initial_shared_head(plan.method, pool.embedding_size, plan.seed, len(pool.class_embeddings))
        self._store.begin(self._announced, self._specification.to_bytes(head), head_digest(head))
        global_head = GlobalHead(
            self._store, self._specification, plan.downlink_codec, plan.rounds, SMALLEST_COMMON_LIMIT
        )
        configuration = AggregatorConfiguration(
            FederationSettings(
                FEDERATION,
                bundle="",
                rounds=plan.rounds,
                method=plan.method,
                minimum_sites=plan.participants,
                # Nothing is hostile here, and only a round that never closes would be noticed.
                round_timeout_seconds=float("inf"),
                maximum_update_norm=float("inf"),
            )
        )
        return Coordinator(configuration, self._announced, self._store, global_head, _NOW)

    def _connect(self, site: VirtualSite) -> None:
        """Bring a site online: the broker hands it what is retained."""
        connected = self._connected[site.name] = _Connected(site)
        connected.inbox += self._retained.items()
        self._deliver()

    def _leave(self, name: str) -> None:
        self._send_status(name, self._agent(name).status(online=False))
        self._deliver()
        self._close_agent(name)
        del self._connected[name]

    def _train(self, name: str) -> None:
        """Let the site join, fetch what it missed, train and deliver."""
        connected = self._connected[name]
        for _ in range(_TICKS_PER_ROUND):
            messages = self._agent(name).tick(connected.clock)
            self._send(name, messages)
            self._deliver()
            if any(isinstance(message, Update) for message in messages):
                return
            if not messages:
                connected.clock += _PATIENCE_SECONDS

    def _agent(self, name: str) -> SiteAgent:
        """Return an online site's agent; when it is not in memory, from its state on disk."""
        if name in self._resident:
            self._resident.move_to_end(name)
            return self._resident[name][0]
        connected = self._connected[name]
        key = derived_key(self._plan.seed, name)
        identity = Identity(
            FEDERATION,
            name,
            key.public_key,
            self._pool.digest,
            self._key.public_key,
            len(self._pool.class_embeddings),
        )
        state = SiteState(self._folder / "sites" / f"{name}.db", durable=False)
        learner = VirtualLearner(
            connected.site,
            self._pool,
            self._plan.settings,
            state,
            lambda: self.measurements if name == self._measured_site else None,
        )
        agent = SiteAgent(identity, state, learner, SMALLEST_COMMON_LIMIT)
        agent.connected()
        if connected.join_answer is not None:
            # It was put away to save memory, which does not happen to a real site: not counted.
            agent.receive(topics.down(FEDERATION, name), connected.join_answer, connected.clock)
        self._resident[name] = (agent, state)
        if len(self._resident) > _RESIDENT_SITES:
            self._close_agent(next(iter(self._resident)))
        return agent

    def _close_agent(self, name: str) -> None:
        if name in self._resident:
            self._resident.pop(name)[1].close()

    def _deliver(self) -> None:
        """Hand over what waits at the sites, and what follows from it, until nothing does."""
        while name := next((name for name, site in self._connected.items() if site.inbox), None):
            connected, agent = self._connected[name], self._agent(name)
            while connected.inbox:
                topic, payload = connected.inbox.popleft()
                self._traffic.received(topic, payload)
                answers = agent.receive(topic, payload, connected.clock)
                if isinstance(open_envelope(payload, topic).message, JoinAnswer):
                    connected.join_answer = payload
                self._send(name, answers)
            if agent.joined:
                self._send_status(name, agent.status(online=True))

    def _send(self, name: str, messages: Iterable[Message]) -> None:
        topic = topics.up(FEDERATION, name)
        key = derived_key(self._plan.seed, name)
        for message in messages:
            self._to_coordinator(topic, seal(message, topic, key, self._announced.identity))

    def _send_status(self, name: str, status: Status) -> None:
        """Publish a status that differs from the one before; the aggregator alone listens to it."""
        if self._connected[name].status != status:
            self._connected[name].status = status
            topic = topics.status(FEDERATION, name)
            key = derived_key(self._plan.seed, name)
            self._to_coordinator(topic, seal(status, topic, key, NO_IDENTITY))

    def _to_coordinator(self, topic: str, payload: bytes) -> None:
        self._traffic.sent(topic, payload)
        self._publish(self._coordinator.receive(topic, payload, _NOW))

    def _publish(self, outgoing: Iterable[Outgoing]) -> None:
        for item in outgoing:
            payload = seal(item.message, item.topic, self._key, self._announced.identity)
            if item.retain:
                self._retained[item.topic] = payload
            if item.topic.startswith(topics.down(FEDERATION, "")):
                self._connected[topics.site_of(item.topic)].inbox.append((item.topic, payload))
            else:
                for connected in self._connected.values():
                    connected.inbox.append((item.topic, payload))


def wire_plan(plan: FederationPlan, pool: FeaturePool, key: SigningKey) -> Plan:
    """Return the Plan message of a federation whose aggregator has this key."""
    return Plan(
        identity=pool.digest[:16],
        aggregator_key=key.public_key,
        method=plan.method,
        bundle_digest=pool.digest,
        embedding_size=pool.embedding_size,
        rounds=plan.rounds,
        seed=plan.seed,
        uplink_codec=plan.uplink_codec,
        downlink_codec=plan.downlink_codec,
        training={},
    )


def derived_key(seed: int, name: str) -> SigningKey:
    """Return the same signing key for the same name each time: no key is worth keeping in a simulation."""
    private = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(private))
