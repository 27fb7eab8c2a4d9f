"""One run: a federation with one codec and one seed, played to its end and evaluated after each round."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Protocol

import msgspec
import numpy as np

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.heads import predict_probabilities
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.codecs import codec_named
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.simulation.bandwidth.federation import Federation, FederationPlan
from fedmedclip.simulation.bandwidth.foreign_federation import ForeignFederation, WholeHeadCoder
from fedmedclip.simulation.bandwidth.learner import CodecMeasurements
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.virtual_sites import (
    VirtualSite,
    VirtualSites,
    dirichlet_sites,
    natural_sites,
)

WORKING_PREFIX = "federation-"


@dataclass(frozen=True)
class CodecChoice:
    """The codecs of a row by name; written `UP/DOWN` when the two directions differ."""

    label: str
    uplink: str
    downlink: str

    @property
    def whole_head(self) -> bool:
        """Whether whole heads travel instead of deltas."""
        return codec_named(self.uplink).whole_head


class Round(msgspec.Struct, frozen=True):
    """One round: who took part, bytes of all of them together, and the new shared head's accuracy."""

    participants: int
    uplink_bytes: int
    downlink_bytes: int
    exchanges: int
    accuracy: float
    accuracy_global: float | None


class Run(msgspec.Struct, frozen=True):
    """A finished run. Bytes by message are sums over all rounds; codec figures are means over the rounds."""

    codec: str
    seed: int
    rounds: list[Round]
    sites_reached: int
    uplink_by_message: dict[str, int]
    downlink_by_message: dict[str, int]
    payload_bytes: float
    entropy_limit_bytes: float
    encode_ms: float
    decode_ms: float
    head_digest: str


@dataclass(frozen=True)
class Experiment:
    """What all runs of a benchmark share. `sites` None: the natural ones."""

    pool: FeaturePool
    method: str
    rounds: int
    sites: int | None
    alpha: float
    sites_per_round: int | None
    settings: TrainingSettings = field(default_factory=TrainingSettings)

    def deal(self, seed: int) -> VirtualSites:
        """Return the sites of a seed."""
        pool = self.pool
        if self.sites is None:
            return natural_sites(pool.labels, pool.content_hashes, pool.sites, pool.site_names, seed)
        return dirichlet_sites(pool.labels, pool.content_hashes, self.sites, self.alpha, seed)

    def description(self) -> dict[str, object]:
        """Return everything that a run's numbers depend on, except its codec and seed."""
        return {
            "features": self.pool.digest.hex(),
            "method": self.method,
            "rounds": self.rounds,
            "sites": self.sites,
            "alpha": None if self.sites is None else self.alpha,
            "sites_per_round": self.sites_per_round,
            "training": msgspec.to_builtins(self.settings),
        }


def codec_choice(text: str) -> CodecChoice:
    """Read `CODEC` or `UP/DOWN`; raise InvalidInputError for an unknown codec or a mixture of kinds."""
    uplink, _, downlink = text.partition("/")
    downlink = downlink or uplink
    if codec_named(uplink).whole_head != codec_named(downlink).whole_head:
        raise InvalidInputError(
            f"codecs {text!r}: one sends whole heads and the other deltas; give two of a kind"
        )
    return CodecChoice(text, uplink, downlink)


def open_runs(folder: Path, experiment: Experiment) -> RunFile[Run, tuple[str, int]]:
    """Return the finished runs in a folder by codec and seed. Raises InvalidInputError as `RunFile` does."""
    return RunFile(
        folder / "runs.jsonl", experiment.description(), Run, key_of=lambda run: (run.codec, run.seed)
    )


class AnyFederation(Protocol):
    """What plays rounds: production agents, or somebody else's payloads in our envelopes."""

    @property
    def head(self) -> NamedArrays: ...
    @property
    def measurements(self) -> CodecMeasurements: ...

    def play_round(self, round_number: int, participants: Iterable[VirtualSite]) -> Traffic:
        """Make the next version; return what travelled."""

    def close(self) -> None:
        """Release all files."""


def codec_choices(codecs: str) -> list[CodecChoice]:
    """Read a list such as `int8,lowrank:rank=8,bits=4,sign/int8`. Raises InvalidInputError."""
    names: list[str] = []
    for part in filter(None, map(str.strip, codecs.split(","))):
        # A codec's own parameters have commas between them too: lowrank:rank=8,bits=4
        if names and "=" in part and ":" not in part:
            names[-1] += f",{part}"
        else:
            names.append(part)
    if not names:
        raise InvalidInputError("--codecs is empty; give one or more names with commas between them")
    return [codec_choice(name) for name in dict.fromkeys(names)]


def run_federation(
    experiment: Experiment, choice: CodecChoice, seed: int, folder: Path, on_round: Callable[[], None]
) -> Run:
    """Play all rounds with a codec of ours; working state lies below `folder` while it lasts."""
    pool = experiment.pool
    plan = plan_of(experiment, choice.uplink, choice.downlink, seed)
    with TemporaryDirectory(dir=folder, prefix=WORKING_PREFIX) as states:
        federation: AnyFederation
        if choice.whole_head:
            specification = shared_head_specification(
                plan.method, pool.embedding_size, len(pool.class_embeddings)
            )
            coder = WholeHeadCoder(choice.uplink, choice.downlink, specification)
            federation = ForeignFederation(plan, pool, Path(states), coder)
        else:
            federation = Federation(plan, pool, Path(states))
        try:
            return play(federation, experiment, choice.label, seed, on_round)
        finally:
            federation.close()


def plan_of(experiment: Experiment, uplink: str, downlink: str, seed: int) -> FederationPlan:
    """Return the plan of one run; the codecs' names are what the Plan message says."""
    return FederationPlan(
        experiment.method,
        uplink,
        downlink,
        experiment.rounds,
        seed,
        _participants(experiment, experiment.deal(seed)),
        experiment.settings,
    )


def play(
    federation: AnyFederation, experiment: Experiment, label: str, seed: int, on_round: Callable[[], None]
) -> Run:
    """Play all rounds of a federation that has just begun, and evaluate its head after each."""
    pool, sites = experiment.pool, experiment.deal(seed)
    test = LabelledFeatures(pool.embeddings[sites.test], pool.labels[sites.test])
    rounds: list[Round] = []
    reached: set[str] = set()
    uplink: Counter[str] = Counter()
    downlink: Counter[str] = Counter()
    for number in range(1, experiment.rounds + 1):
        chosen = sites.participants(_participants(experiment, sites), seed, number)
        traffic = federation.play_round(number, chosen)
        reached.update(site.name for site in chosen)
        uplink += traffic.uplink
        downlink += traffic.downlink
        head = federation.head
        rounds.append(
            Round(
                len(chosen),
                traffic.uplink.total(),
                traffic.downlink.total(),
                traffic.exchanges,
                accuracy(experiment.method, head, pool, test),
                None
                if pool.global_test is None
                else accuracy(experiment.method, head, pool, pool.global_test),
            )
        )
        on_round()
    found = federation.measurements
    return Run(
        label,
        seed,
        rounds,
        len(reached),
        dict(sorted(uplink.items())),
        dict(sorted(downlink.items())),
        fmean(found.payload_bytes),
        fmean(found.entropy_bytes),
        fmean(found.encode_ms),
        fmean(found.decode_ms),
        head_digest(federation.head).hex(),
    )


def _participants(experiment: Experiment, sites: VirtualSites) -> int:
    return min(experiment.sites_per_round or len(sites.sites), len(sites.sites))


def accuracy(method: str, head: NamedArrays, pool: FeaturePool, images: LabelledFeatures) -> float:
    """Return the shared head's share of right answers."""
    found = predict_probabilities(
        method, head, None, images.embeddings, pool.class_embeddings, pool.logit_scale
    )
    return float(np.mean(found.shared.argmax(axis=1) == images.labels))
