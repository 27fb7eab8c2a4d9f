"""The rows of the comparison: peers at each budget, methods of the product by their names, and zero-shot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.one_shot.afl import AFL
from benchmarks.one_shot.fed3r import Fed3R
from benchmarks.one_shot.fedcgs import FedCGS
from benchmarks.one_shot.fedcof import FedCOF
from benchmarks.one_shot.peer import Peer
from benchmarks.one_shot.play import Answered, OneShot
from fedmedclip.edge_client.learning.method import trainable_method
from fedmedclip.protocol.codecs import require_delta_codec
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import codec_for, known_methods
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.engine import begin
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.source import Features
from fedmedclip.simulation.federation.virtual_sites import VirtualSites
from fedmedclip.simulation.newcomer.runs import Newcomers
from fedmedclip.simulation.newcomer.study import FEDERATED, WITHOUT_TRAINING, Case, Study

PEERS: tuple[Peer, ...] = (FedCOF(), Fed3R(), AFL(), FedCGS())
OURS = ("one-message@1@moments:bytes=1200", "whitened-memory@30@lowrank", "fedmedclip@30@lowrank")
"""METHOD@ROUNDS@CODEC; by default those that this version has."""
_MOST_ROUNDS = 1_000_000


class Contender(Protocol):
    """Who answers."""

    @property
    def label(self) -> str:
        """The row's name."""

    @property
    def rounds(self) -> int:
        """How often each site sends."""

    def run(self, case: Case, on_round: Callable[[], None]) -> Answered:
        """Answer the test images of a case, whose way and method count for nothing."""


@dataclass(frozen=True)
class PeerContender:
    """A peer within a budget of bytes for a site's message; None is float32, whatever it takes."""

    one_shot: OneShot
    rounds: int = 1

    @property
    def label(self) -> str:
        """The row's name."""
        budget = self.one_shot.budget
        return f"{self.one_shot.peer.name}, {'float32' if budget is None else f'{budget:,} bytes'}"

    def run(self, case: Case, on_round: Callable[[], None]) -> Answered:
        """See `Contender`."""
        answered = self.one_shot.run(case)
        on_round()
        return answered


@dataclass(frozen=True)
class ZeroShot:
    """The bundle's class embeddings, without any training."""

    newcomers: Newcomers
    label: str = ZERO_SHOT
    rounds: int = 0

    def run(self, case: Case, on_round: Callable[[], None]) -> Answered:
        """See `Contender`."""
        found = self.newcomers.run(case._replace(way=WITHOUT_TRAINING, method=""), on_round)
        on_round()
        return Answered(found.answers, 0, "")


@dataclass
class Ours:
    """A method of the product, played as `bench newcomer` plays it, with its floors."""

    newcomers: Newcomers
    method: str
    _bytes: dict[int, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The row's name."""
        words = "1 round" if self.rounds == 1 else f"{self.rounds} rounds"
        return f"{self.method}, {words}, {self._codec}"

    @property
    def rounds(self) -> int:
        """How often each site sends."""
        return self.newcomers.study.rounds_of(self.method)

    @property
    def _codec(self) -> str:
        return codec_for(self.method, self.newcomers.study.codec)

    def run(self, case: Case, on_round: Callable[[], None]) -> Answered:
        """See `Contender`; the bytes are those of a federation of all hospitals."""
        found = self.newcomers.run(case._replace(way=FEDERATED, method=self.method), on_round)
        return Answered(found.answers, self._uplink_bytes(case.seed), self._codec)

    def _uplink_bytes(self, seed: int) -> int:
        """Return what a site sends in updates over all rounds, on average."""
        if seed not in self._bytes:
            study, sites = self.newcomers.study, self.newcomers.study.sites(seed)
            experiment = study.experiment(self.method, FEDERATED)
            targets = study.features.unlabelled
            together = VirtualSites(tuple(sites), 0)
            folder = self.newcomers.folder
            with begin(experiment, study.pool, seed, folder, targets=targets, sites=together) as run:
                sent = run.play(lambda: None, lambda: None).rounds.uplink_by_message
            self._bytes[seed] = round((sent.get("Update", 0) + sent.get("Block", 0)) / len(sites))
        return self._bytes[seed]


def contenders(
    features: Features, budgets: Sequence[int], ours: Sequence[str] | None, out: Path
) -> list[Contender]:
    """Return all rows: zero-shot, `ours` (None: the usual), each peer at each budget and in float32.

    Raises InvalidInputError for a method, a number of rounds or a codec that cannot be used.
    """
    known = known_methods()
    named = [name for name in OURS if name.partition("@")[0] in known] if ours is None else ours
    study = Study(features, "lowrank", 1)
    found: list[Contender] = [ZeroShot(Newcomers(study, out))]
    found += [_ours(name, features, out) for name in named]
    found += [PeerContender(OneShot(study, peer, budget)) for budget in (*budgets, None) for peer in PEERS]
    return found


def _ours(name: str, features: Features, out: Path) -> Ours:
    method, _, rest = name.partition("@")
    rounds, _, codec = rest.partition("@")
    if not (rounds.isascii() and rounds.isdigit() and 0 < int(rounds) <= _MOST_ROUNDS and codec):
        raise InvalidInputError(f"--ours {name!r} is no METHOD@ROUNDS@CODEC; give fedmedclip@30@lowrank")
    trainable_method(method)
    require_delta_codec(codecs_of(codec)[0], "--ours")
    return Ours(Newcomers(Study(features, codec, int(rounds)), out), method)
