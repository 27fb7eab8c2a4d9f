"""What the in-process federation is held against: production coordinator and site agents, with their files.

Every payload that a broker would carry is made, signed, verified and counted; it is handed over at once
instead of published. A site that sits a round out goes offline and its state rests on disk. When it comes
back it joins again and reads what it missed, as a real one does.
"""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import Abstain, Status, Update
from fedmedclip.simulation.federation.plan import AGGREGATOR, FEDERATION, derived_key, wire_plan
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

# The coordinator's clock stands still: here no round is ever late.
NOW = 0.0
# Joining, asking for missed blocks and training are one tick each; between them a site may have to wait.
TICKS_PER_ROUND = 6
# The agents ask again for blocks that stay away this long.
PATIENCE_SECONDS = ASK_AGAIN_SECONDS + 1


class VirtualLearner:
    """The `Learner` of a virtual site; `heads` has the round and the digest of each head it trained from."""

    def __init__(self, site: VirtualSite, trainer: Trainer, heads: list[tuple[int, bytes]]):
        self._site = site
        self._trainer = trainer
        self._heads = heads
        self.samples = len(site.train)

    def private_specification(self, plan):
        return self._trainer.private_specification

    def initial_private_head(self, plan):
        return self._trainer.initial_private(self._site.name)

    def train(self, plan, shared, private, round_number):
        self._heads.append((round_number, head_digest(shared)))
        return self._trainer.train(self._site, shared, private, round_number)

    def contribution(self, plan):
        return self._trainer.contribution(self._site)

    def privacy(self, plan):
        return None

    def compressed(self, round_number, compressed):
        pass

    def installed(self, plan, version, shared, private, finished):
        pass


@dataclass
class Connected:
    """A site that is online: what it has not received yet, what it published last, its clock in seconds."""

    agent: SiteAgent
    state: SiteState
    inbox: deque[tuple[str, bytes]] = field(default_factory=deque)
    status: Status | None = None
    clock: float = 0.0


class ProductionFederation:
    """A federation of `participants` sites in each round, whose states lie in `folder` (empty at first)."""

    def __init__(self, trainer: Trainer, participants: int, folder: Path, message_limit: int):
        self._plan, self._trainer, self._folder = trainer.plan, trainer, folder
        self._message_limit = message_limit
        self._connected: dict[str, Connected] = {}
        self._retained: dict[str, bytes] = {}
        self._traffic = Traffic()
        self._clock = NOW
        self._key = derived_key(trainer.plan.seed, AGGREGATOR)
        self._announced = wire_plan(trainer.plan, trainer.pool, self._key)
        self.trained_from: list[tuple[int, bytes]] = []
        self._store = Store(folder / "aggregator.db", durable=False)
        self._coordinator = self._begin(participants)
        self._publish(self._coordinator.opening())

    @property
    def digest(self):
        """SHA-256 of the newest global head."""
        return self._coordinator.global_head.digest

    def play_round(self, round_number: int, participants) -> Traffic:
        """Let the participants, and nobody else, make version `round_number`; return what travelled."""
        self._traffic = Traffic()
        names = {site.name: site for site in participants}
        for name in [name for name in self._connected if name not in names]:
            self._leave(name)
        for name, site in names.items():
            if name not in self._connected:
                self._connect(site)
            self._train(name)
        assert self._coordinator.global_head.version == round_number
        return self._traffic

    def close(self):
        for connected in self._connected.values():
            connected.state.close()
        self._store.close()

    def _begin(self, participants):
        plan, specification = self._plan, self._trainer.shared_specification
        head = self._trainer.initial_shared()
        self._store.begin(self._announced, specification.to_bytes(head), head_digest(head))
        global_head = GlobalHead(
            self._store, specification, plan.downlink_codec, plan.rounds, self._message_limit,
            rule_for(plan.method, plan.rule),
        )  # fmt: skip
        settings = FederationSettings(
            FEDERATION, bundle="", rounds=plan.rounds, method=plan.method, minimum_sites=participants,
            round_timeout_seconds=float("inf"), maximum_update_norm=float("inf"),
            weighting=plan.weighting,
        )  # fmt: skip
        return Coordinator(AggregatorConfiguration(settings), self._announced, self._store, global_head, NOW)

    def _connect(self, site):
        """Bring a site online: the broker hands it what is retained."""
        pool, name = self._trainer.pool, site.name
        identity = Identity(
            FEDERATION, name, derived_key(self._plan.seed, name).public_key, pool.digest,
            self._key.public_key, len(pool.class_embeddings),
        )  # fmt: skip
        state = SiteState(self._folder / "sites" / f"{name}.db", durable=False)
        learner = VirtualLearner(site, self._trainer, self.trained_from)
        agent = SiteAgent(identity, state, learner, self._message_limit)
        agent.connected()
        self._connected[name] = Connected(agent, state, deque(self._retained.items()))
        self._deliver()

    def _leave(self, name):
        self._send_status(name, self._connected[name].agent.status(online=False))
        self._deliver()
        self._connected.pop(name).state.close()

    def _train(self, name):
        """Let the site join, fetch what it missed, train and deliver."""
        connected = self._connected[name]
        for _ in range(TICKS_PER_ROUND):
            messages = connected.agent.tick(connected.clock)
            self._send(name, messages)
            self._deliver()
            if any(isinstance(message, Update | Abstain) for message in messages):
                return
            if not messages:
                connected.clock += PATIENCE_SECONDS

    def _deliver(self):
        """Hand over what waits at the sites, and what follows from it, until nothing does."""
        while name := next((name for name, site in self._connected.items() if site.inbox), None):
            connected = self._connected[name]
            while connected.inbox:
                topic, payload = connected.inbox.popleft()
                self._traffic.received(topic, payload)
                self._send(name, connected.agent.receive(topic, payload, connected.clock))
            if connected.agent.joined:
                self._send_status(name, connected.agent.status(online=True))

    def _send(self, name, messages):
        topic = topics.up(FEDERATION, name)
        key = derived_key(self._plan.seed, name)
        for message in messages:
            self._to_coordinator(topic, seal(message, topic, key, self._announced.identity))

    def _send_status(self, name, status):
        """Publish a status that differs from the one before; the aggregator alone listens to it."""
        said = self._connected[name].status
        if said is None or (said.online, said.version) != (status.online, status.version):
            self._connected[name].status = status
            topic = topics.status(FEDERATION, name)
            self._to_coordinator(topic, seal(status, topic, derived_key(self._plan.seed, name), NO_IDENTITY))

    def _now(self):
        """Time passes with each message, so that nobody asks too fast for the aggregator."""
        self._clock += 2.0
        return self._clock

    def _to_coordinator(self, topic, payload):
        self._traffic.sent(topic, payload)
        self._publish(self._coordinator.receive(topic, payload, self._now()))

    def _publish(self, outgoing):
        for item in outgoing:
            payload = seal(item.message, item.topic, self._key, self._announced.identity)
            if item.retain:
                self._retained[item.topic] = payload
            if item.topic.startswith(topics.down(FEDERATION, "")):
                self._connected[topics.site_of(item.topic)].inbox.append((item.topic, payload))
            else:
                for connected in self._connected.values():
                    connected.inbox.append((item.topic, payload))
