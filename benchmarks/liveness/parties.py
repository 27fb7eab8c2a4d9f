"""The parties of a small federation, which can be put away and taken up again in any state they were in.

What runs is the code: `Coordinator`, `GlobalHead`, `Rounds`, `Recovery`, `SiteAgent`, `HeadFollower`, both
stores (SQLite in memory), codecs and signatures. A stand-in is only the learner
(a seeded drift of the heads).
"""

import hashlib
import io
import pickle
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.liveness.clocks import LEASE_SECONDS, ROUND_SECONDS
from benchmarks.liveness.essence import essence_of_database, essence_of_memory
from fedmedclip.aggregator.aggregation import Weighing
from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.policy import AUTOMATIC, PolicySettings
from fedmedclip.edge_client.site.roles import Contribution, Identity, PrivateSide
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.codecs.error_feedback import Compressed
from fedmedclip.protocol.database import IN_MEMORY
from fedmedclip.protocol.heads.head import (
    HeadSpecification,
    NamedArrays,
    TensorSpecification,
    head_digest,
)
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.moments import Moments
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.protocol.signature import new_signing_key

FEDERATION = "small"
METHOD = "fedmedclip"
CODEC = "int8"
BUNDLE = bytes(range(32))
EMBEDDING_SIZE = 2
MESSAGE_LIMIT = 65536
AGGREGATOR = "aggregator"
PRIVATE = HeadSpecification((TensorSpecification("private", (1,)),))

_BY_DEFAULT = Weighing()

Counted = tuple[tuple[str, int, bytes], ...]
"""Site, round and SHA-256 of each update that a head is made of, in the order in which they were counted."""


class DriftingLearner:
    """Moves both heads by seeded steps."""

    samples = 100

    def __init__(self, site: str) -> None:
        self.site = site

    def private_specification(self, plan: Plan, classes: int | None = None) -> HeadSpecification:
        """Return that of one number."""
        return PRIVATE

    def initial_private_head(self, plan: Plan) -> NamedArrays:
        """Return the same for everybody."""
        return PRIVATE.initial(1)

    def train(
        self, plan: Plan, shared: NamedArrays, private: NamedArrays, round_number: int
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return heads that depend on site and round."""
        seed = derive_seed(plan.seed, site=self.site, round_number=round_number, purpose="drift")
        generator = np.random.default_rng(seed)
        moved = {
            name: array + np.float32(0.01) * generator.standard_normal(array.shape).astype(np.float32)
            for name, array in shared.items()
        }
        return moved, private

    def contribution(self, plan: Plan) -> Contribution:
        """Return that everything is sent."""
        return Contribution(self.samples)

    def privacy(self, plan: Plan) -> PrivateSide | None:
        """Nobody asks for it."""
        return None

    def compressed(self, round_number: int, compressed: Compressed) -> None:
        """Nobody reads a journal here."""

    def installed(
        self, plan: Plan, version: int, shared: NamedArrays, private: NamedArrays, finished: bool
    ) -> None:
        """Take no notice."""


class CountingHead(GlobalHead):
    """Keeps, beside the code, the updates of which each head is made."""

    counted: dict[bytes, Counted]

    def aggregate(self, round_number: int, weighing: Weighing = _BY_DEFAULT) -> None:
        """Aggregate, and note what went into it."""
        before = self.counted.get(self.digest, ())
        found = tuple(
            (update.site, round_number, hashlib.sha256(update.payload).digest())
            for update in self._store.updates()
        )
        super().aggregate(round_number, weighing)
        self.counted[self.digest] = before + found


@dataclass(frozen=True)
class Kept:
    """A party put away: its database, and what it has in memory."""

    database: bytes
    machine: bytes


def always() -> bool:
    """Whether the link has room: here always."""
    return True


def _stopped_clock() -> float:
    """Read a clock that stands in the past: each start of a site is one session after the one before."""
    return 0.0


class _Pickler(pickle.Pickler):
    """Leaves out the objects of `outside`, which are the same in every state."""

    def __init__(self, file: io.BytesIO, outside: dict[int, str]) -> None:
        super().__init__(file, protocol=5)
        self._outside = outside

    def persistent_id(self, thing: Any) -> str | None:
        return self._outside.get(id(thing))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, outside: dict[str, object]) -> None:
        super().__init__(file)
        self._outside = outside

    def persistent_load(self, name: str) -> object:
        return self._outside[name]


class Parties:
    """One aggregator and its sites. One state of each is live at a time; `keep` and `take_up` change it."""

    def __init__(self, sites: int, rounds: int, policy: PolicySettings = AUTOMATIC) -> None:
        """`policy` is that of each site."""
        self._policy = policy
        self.key = new_signing_key()
        self.keys = {f"site-{index}": new_signing_key() for index in range(sites)}
        self.learners = {site: DriftingLearner(site) for site in self.keys}
        self.settings = AggregatorConfiguration(
            FederationSettings(
                FEDERATION, "unused", rounds, minimum_sites=sites, seed=11, lease_seconds=LEASE_SECONDS,
                round_timeout_seconds=ROUND_SECONDS,
            )
        )  # fmt: skip
        self.plan = Plan(
            bytes(range(16)), self.key.public_key, METHOD, BUNDLE, EMBEDDING_SIZE, rounds, 11, CODEC,
            CODEC, {}, 1, 1, False, 1000.0, None,
        )  # fmt: skip
        self.specification = shared_head_specification(METHOD, EMBEDDING_SIZE)
        self.counted: dict[bytes, Counted] = {}
        self.commands_given = 0
        # One object, which is the same wherever the state is put away.
        self._wall_clock = self._number_of_commands
        self.store = Store(IN_MEMORY)
        self.states = {site: SiteState(IN_MEMORY) for site in self.keys}
        self.agents: dict[str, SiteAgent] = {}
        head = initial_shared_head(METHOD, EMBEDDING_SIZE, self.plan.seed)
        self.store.begin(self.plan, self.specification.to_bytes(head), head_digest(head))
        self.start_aggregator(0.0)
        for site in self.keys:
            self.start_site(site)

    def start_aggregator(self, now: float) -> None:
        """Start its process from what its database holds."""
        plan = self.store.plan()
        assert plan is not None
        head = CountingHead(self.store, self.specification, CODEC, plan.rounds, MESSAGE_LIMIT)
        head.counted = self.counted
        self.coordinator = Coordinator(self.settings, plan, self.store, head, now, always, self._wall_clock)

    def start_site(self, site: str) -> None:
        """Start a site's process from what its database holds, and let it connect."""
        key = self.keys[site].public_key
        identity = Identity(FEDERATION, site, key, BUNDLE, None, None, EMBEDDING_SIZE)
        state = self.states[site]
        moments = Moments(state.session(), state.begin_session, _stopped_clock)
        agent = SiteAgent(
            identity, state, self.learners[site], MESSAGE_LIMIT, moments=moments, policy=self._policy
        )
        agent.connected()
        self.agents[site] = agent

    def decide(self, site: str, *, approved: bool) -> None:
        """Let a site's operator decide of the newest plan, if there is one."""
        consents = self.states[site].consents
        if (plan := consents.heard()) is not None:
            consents.decide(plan, approved, "operator")

    def is_undecided(self, site: str) -> bool:
        """Whether a site's operator has yet to approve the newest plan, or a part of it."""
        consents = self.states[site].consents
        plan = consents.heard()
        return plan is not None and not consents.covers(plan)

    def _number_of_commands(self) -> float:
        """Stands for the time of day, by which changes of the plan are numbered: each is later than the one
        before, also where the aggregator has lost its state.
        """
        return float(self.commands_given)

    def took_for_accepted(self, site: str, round_number: int) -> bool:
        """Whether a site's books say that its update of a round, which it owes no longer, was accepted."""
        query = "SELECT 1 FROM outbox WHERE accepted AND round_number = ?"
        return _database(self.states[site]).execute(query, (round_number,)).fetchone() is not None

    def keep(self, party: str) -> Kept:
        """Put the party's present state away."""
        buffer = io.BytesIO()
        outside = {id(thing): name for name, thing in self._outside(party).items()}
        _Pickler(buffer, outside).dump(self._machine(party))
        return Kept(zlib.compress(_database(self._storage(party)).serialize(), 1), buffer.getvalue())

    def take_up(self, party: str, kept: Kept) -> None:
        """Make what was put away the party's present state."""
        self.replace_database(party, kept.database)
        machine = _Unpickler(io.BytesIO(kept.machine), self._outside(party)).load()
        if party == AGGREGATOR:
            self.coordinator = machine
        else:
            self.agents[party] = machine

    def replace_database(self, party: str, database: bytes) -> None:
        """Put another database in the place of the party's."""
        _database(self._storage(party)).deserialize(zlib.decompress(database))

    def essence(self, party: str, now: float) -> bytes:
        """Return what tells two states of a party apart."""
        return essence_of_memory(self._machine(party), now) + self.essence_of_database(party)

    def essence_of_database(self, party: str) -> bytes:
        """Return what tells two of the party's databases apart."""
        return essence_of_database(_database(self._storage(party)))

    def _machine(self, party: str) -> Coordinator | SiteAgent:
        return self.coordinator if party == AGGREGATOR else self.agents[party]

    def _storage(self, party: str) -> Store | SiteState:
        return self.store if party == AGGREGATOR else self.states[party]

    def _outside(self, party: str) -> dict[str, object]:
        storage = self._storage(party)
        common: dict[str, object] = {
            "storage": storage, "specification": self.specification, "always": always,
            "wall clock": self._wall_clock,
            **{f"storage.{name}": part for name, part in vars(storage).items()},
        }  # fmt: skip
        if party == AGGREGATOR:
            rule = self.coordinator.global_head.rule
            return {**common, "settings": self.settings.federation, "counted": self.counted, "rule": rule}
        return {**common, "learner": self.learners[party]}


def _database(storage: Store | SiteState) -> Any:
    return storage._database._connection
