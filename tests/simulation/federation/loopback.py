"""A federation without broker or encoder: real coordinator, agents, stores, codecs and signatures.

The network is a queue that loses, repeats and delays messages, and any party can be killed between two
messages. Only the learner is a stand-in (a seeded drift of the heads): its numbers do not matter here.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.metrics import Metrics
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.policy import AUTOMATIC, PolicySettings
from fedmedclip.edge_client.site.roles import Contribution, Identity
from fedmedclip.edge_client.site.shared_metrics import SharedMetrics
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import Plan, Status
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.protocol.signature import new_signing_key

FEDERATION = "trial"
BUNDLE = bytes(range(32))
PRIVATE = HeadSpecification((TensorSpecification("private", (5,)),))
MESSAGE_LIMIT = 4096
HEARTBEAT_SECONDS = 60.0


def measured(share, images=400):
    """Figures of a classifier that is right in this share of images, of each of two classes alike."""
    right = round(share * images / 2)
    wrong = images // 2 - right
    return Metrics(images, share, share, share, 0.1, 0.5, {}, ((right, wrong), (wrong, right)))


@dataclass
class DriftingLearner:
    """Moves both heads by seeded steps; keeps the digest of every head that was installed."""

    site: str
    samples: int
    trained: list[int] = field(default_factory=list)
    digests: dict[int, bytes] = field(default_factory=dict)
    shares: dict[int, float] = field(default_factory=dict)
    withheld: str = ""
    shared_metrics: SharedMetrics | None = None
    scores: Callable[[str, int], float] = lambda site, version: 0.5

    def private_specification(self, plan):
        return PRIVATE

    def initial_private_head(self, plan):
        return PRIVATE.initial(1)

    def train(self, plan, shared, private, round_number):
        self.trained.append(round_number)
        seed = derive_seed(plan.seed, site=self.site, round_number=round_number, purpose="drift")
        generator = np.random.default_rng(seed)
        moved = {
            name: array + np.float32(0.01) * generator.standard_normal(array.shape).astype(np.float32)
            for name, array in shared.items()
        }
        return moved, {"private": private["private"] + np.float32(round_number)}

    def contribution(self, plan):
        return Contribution(self.samples, self.withheld)

    def privacy(self, plan):
        return None

    def compressed(self, round_number, compressed):
        self.shares[round_number] = compressed.residual_share

    def installed(self, plan, version, shared, private, finished):
        self.digests[version] = head_digest(shared)
        if self.shared_metrics is not None:
            found = measured(self.scores(self.site, version))
            self.shared_metrics.note(
                plan, version, "activated", version, (self.samples, 400, 20), {"ensemble": found}
            )


class StatisticsLearner(DriftingLearner):
    """A site of a method that sends statistics: those of its images, of three classes, in each round."""

    def train(self, plan, shared, private, round_number):
        self.trained.append(round_number)
        draw = np.random.default_rng(self.samples)
        rows = unit_rows(draw.normal(size=(40, plan.embedding_size)).astype(np.float32))
        trained = train_round(
            plan.method, shared, {}, rows, np.arange(40) % 3, rows[:3], 10.0, TrainingSettings(),
            round_number=round_number, seed=self.samples,
        )  # fmt: skip
        return trained.shared, private


class Loopback:
    """Runs a federation to its end under a given share of lost messages and kills."""

    def __init__(
        self,
        folder: Path,
        *,
        sites=3,
        rounds=4,
        embedding_size=24,
        minimum_sites=None,
        enrolment="open",
        listed=None,
        codec="lowrank",
        keys_of: "Loopback | None" = None,
        own_codecs=None,
        register=None,
        secure=None,
        method="fedmedclip",
        classes=None,
        learner=None,
        site_policies=None,
        metrics: PolicySettings | None = None,
        durable=False,
        **policy,
    ):
        self.folder = folder
        self.now = 0.0
        self.queue: list[tuple[str, str, bytes]] = []
        self.retained: dict[str, bytes] = {}
        self.said_at: dict[str, float] = {}
        self.said: dict[str, Status] = {}
        settings = FederationSettings(
            FEDERATION, "unused", rounds, minimum_sites=minimum_sites or sites, seed=11, enrolment=enrolment,
            **policy,
        )  # fmt: skip
        self.configuration = AggregatorConfiguration(settings, sites=listed or {})
        self.aggregator_key = keys_of.aggregator_key if keys_of else new_signing_key()
        self.keys = (
            keys_of.keys if keys_of else {f"site-{index}": new_signing_key() for index in range(sites)}
        )
        self.learners = {
            site: (learner or DriftingLearner)(site, 100 + 50 * index) for index, site in enumerate(self.keys)
        }
        self.plan = Plan(
            os.urandom(16), self.aggregator_key.public_key, method, BUNDLE, embedding_size,
            rounds, 11, codec, codec, {}, 1, 1, False, 1000.0, None, None, secure,
        )  # fmt: skip
        self.specification = shared_head_specification(method, embedding_size, classes or 0)
        self.classes = classes
        self.own_codecs = own_codecs or {}
        self.register = register
        self.site_policies = site_policies or {}
        self.metrics = metrics
        self.durable = durable
        self.agents: dict[str, SiteAgent] = {}
        self.states: dict[str, SiteState] = {}
        self.start_aggregator()
        for site in self.keys:
            self.start_site(site)

    def start_aggregator(self):
        self.store = Store(self.folder / "aggregator.db", durable=self.durable)
        if self.store.plan() is None:
            head = initial_shared_head(
                self.plan.method, self.plan.embedding_size, self.plan.seed, self.classes or 0
            )
            self.store.begin(self.plan, self.specification.to_bytes(head), head_digest(head))
        self.plan = self.store.plan()
        head = GlobalHead(
            self.store, self.specification, self.plan.downlink_codec, self.plan.rounds, MESSAGE_LIMIT
        )
        self.coordinator = Coordinator(
            self.configuration, self.plan, self.store, head, self.now, register=self.register
        )
        for topic, payload in sorted(self.retained.items()):
            if "/status/" in topic:
                self.queue.append(("aggregator", topic, payload))
        self.from_aggregator(self.coordinator.opening())

    def restore_aggregator(self, backup):
        """Put a copy of the aggregator's database in the place of the newer one, as after a broken disk."""
        self.store.close()
        for name in ("aggregator.db", "aggregator.db-wal", "aggregator.db-shm"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "aggregator.db").write_bytes(backup.read_bytes())
        self.start_aggregator()

    def begin_run(self, **changes):
        """Begin another run with the same aggregator, keys and sites."""
        changes = {"identity": os.urandom(16), "number": self.plan.number + 1, "revision": 1, **changes}
        self.plan = msgspec.structs.replace(self.plan, **changes)
        head = self.specification.to_bytes(
            initial_shared_head(self.plan.method, self.plan.embedding_size, self.plan.seed, self.classes or 0)
        )
        self.store.begin_run(self.plan, head, head_digest(self.specification.from_bytes(head)))
        self.store.close()
        self.start_aggregator()

    def start_site(self, site):
        identity = Identity(
            FEDERATION, site, self.keys[site].public_key, BUNDLE, None, self.classes, self.plan.embedding_size
        )
        self.states[site] = state = SiteState(self.folder / f"{site}.db", durable=self.durable)
        shared = None if self.metrics is None else state.shared_metrics(self.metrics, "1.0")
        self.learners[site].shared_metrics = shared
        self.agents[site] = SiteAgent(
            identity, state, self.learners[site], MESSAGE_LIMIT, self.own_codecs.get(site),
            policy=self.site_policies.get(site, AUTOMATIC),
            shared_metrics=shared,
        )  # fmt: skip
        self.agents[site].connected()
        self.said.pop(site, None)
        for topic, payload in sorted(self.retained.items()):
            if "/status/" not in topic:
                self.queue.append((site, topic, payload))

    def from_aggregator(self, outgoing):
        for item in outgoing:
            payload = seal(item.message, item.topic, self.aggregator_key, self.plan.identity)
            if item.retain:
                self.retained[item.topic] = payload
            for site in self.agents:
                if "/down/" not in item.topic or topics.site_of(item.topic) == site:
                    self.queue.append((site, item.topic, payload))

    def from_site(self, site, messages):
        topic = topics.up(FEDERATION, site)
        identity = self.agents[site].plan_identity
        for message in messages:
            self.queue.append(("aggregator", topic, seal(message, topic, self.keys[site], identity)))

    def publish_status(self, site):
        """Publish a status that is owed, or that is due again to renew the site's lease."""
        agent = self.agents[site]
        silent = agent.joined and self.now - self.said_at.get(site, 0.0) >= HEARTBEAT_SECONDS
        if not agent.owes_status(self.said.get(site)) and not silent:
            return
        self.said[site] = self.agents[site].status(online=True)
        topic = topics.status(FEDERATION, site)
        self.said_at[site] = self.now
        self.retained[topic] = seal(self.said[site], topic, self.keys[site], NO_IDENTITY)
        self.queue.append(("aggregator", topic, self.retained[topic]))

    def deliver(self, receiver, topic, payload):
        if receiver == "aggregator":
            self.from_aggregator(self.coordinator.receive(topic, payload, self.now))
        elif receiver in self.agents:
            self.from_site(receiver, self.agents[receiver].receive(topic, payload, self.now))

    def idle(self):
        self.now += 7.0
        self.from_aggregator(self.coordinator.tick(self.now))
        for site, agent in self.agents.items():
            self.from_site(site, agent.tick(self.now))
            self.publish_status(site)

    def step(self, *, loss=0.0, repeats=0.0, kills=0.0, chance=None):
        chance = chance or random.Random(0)
        if not self.queue:
            self.idle()
            return
        position = 0 if chance.random() < 0.8 else chance.randrange(len(self.queue))
        receiver, topic, payload = self.queue.pop(position)
        if chance.random() < repeats:
            self.queue.append((receiver, topic, payload))
        # The plan is retained: a broker hands it out again whenever a site subscribes.
        if topic.endswith("/plan") or chance.random() >= loss:
            self.deliver(receiver, topic, payload)
        if chance.random() < kills:
            self.kill(chance.choice(["aggregator", *self.agents]))

    def kill(self, victim):
        if victim == "aggregator":
            self.store.close()
            self.start_aggregator()
        else:
            self.start_site(victim)

    def run(self, *, loss=0.0, repeats=0.0, kills=0.0, seed=0, steps=20_000):
        chance = random.Random(seed)
        for _ in range(steps):
            if all(agent.finished for agent in self.agents.values()) and not self.queue:
                return
            self.step(loss=loss, repeats=repeats, kills=kills, chance=chance)
        raise AssertionError(f"not finished at version {self.coordinator.global_head.version}")

    def final_digest(self):
        last = self.coordinator.plan.rounds
        digests = {self.learners[site].digests[last] for site in self.agents}
        assert digests == {self.coordinator.global_head.digest}
        return digests.pop()


def play_to(federation, version, **disturbance):
    """Play until a version is made and all that is on its way has arrived."""
    for _ in range(20_000):
        if federation.coordinator.global_head.version >= version and not federation.queue:
            return
        federation.step(**disturbance)
    raise AssertionError(f"stuck at version {federation.coordinator.global_head.version}")


class InOrder(random.Random):
    """Chance that never takes another message than the first."""

    def random(self):
        return 0.5


IN_ORDER = InOrder()
