"""One run: a federation with one codec and one seed, played to its end and evaluated after each round."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import msgspec

from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, Floors
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.simulation.federation.coders import CodecMeasurements, Coder, codecs_of
from fedmedclip.simulation.federation.evaluation import Examiner
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.rounds import play
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite, VirtualSites
from fedmedclip.simulation.name_lists import parse_names


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
    floors: Floors = DEFAULT_FLOORS

    def deal(self, seed: int) -> VirtualSites:
        """Return the sites of a seed."""
        return self.pool.deal(seed, self.sites, self.alpha)

    def trainer(self, seed: int, uplink: str, downlink: str) -> Trainer:
        """Return what trains in a run; the codecs' names are what the Plan message says."""
        plan = FederationPlan(
            self.method, uplink, downlink, self.rounds, seed, self.settings, floors=self.floors
        )
        return Trainer(plan, self.pool)

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
            "rule": rule_for(self.method, None).name,
            "floors": msgspec.to_builtins(self.floors),
        }


def open_runs(folder: Path, experiment: Experiment) -> RunFile[Run, tuple[str, int]]:
    """Return the finished runs in a folder by codec and seed. Raises InvalidInputError as `RunFile` does."""
    return RunFile(
        folder / "runs.jsonl", experiment.description(), Run, key_of=lambda run: (run.codec, run.seed)
    )


def codec_choices(codecs: str) -> list[str]:
    """Read a list such as `int8,lowrank:rank=8,bits=4,sign/int8`. Raises InvalidInputError as `codecs_of`."""
    names = parse_names("--codecs", codecs)
    for name in names:
        codecs_of(name)
    return names


def run_federation(
    experiment: Experiment, codecs: str, seed: int, folder: Path, on_round: Callable[[], None]
) -> Run:
    """Play all rounds with codecs of ours; working state lies below `folder` while it lasts."""
    return play_codec(experiment, codecs, experiment.trainer(seed, *codecs_of(codecs)), folder, on_round)


def play_codec(
    experiment: Experiment,
    label: str,
    trainer: Trainer,
    folder: Path,
    on_round: Callable[[], None],
    coder: Coder | None = None,
) -> Run:
    """Play all rounds with the codecs of the trainer's plan, or another `coder`, and evaluate after each."""
    pool, seed = experiment.pool, trainer.plan.seed
    sites = experiment.deal(seed)
    test = LabelledFeatures(pool.embeddings[sites.test], pool.labels[sites.test])
    examiner = Examiner(pool, experiment.method)
    found = CodecMeasurements()

    def participants(number: int) -> Sequence[VirtualSite]:
        return sites.participants(experiment.sites_per_round, seed, number)

    with closing(Federation(trainer, folder, coder, found)) as federation:

        def score() -> tuple[float, float | None]:
            head = federation.head
            return examiner.shared_accuracy(head, test), examiner.on_global_test(head)

        played = play(federation, experiment.rounds, participants, score, on_round)
        digest = head_digest(federation.head).hex()
    return Run(
        label,
        seed,
        [
            Round(entry.sites, entry.uplink_bytes, entry.downlink_bytes, entry.exchanges, *entry.score)
            for entry in played.rounds
        ],
        played.sites_reached,
        played.uplink_by_message,
        played.downlink_by_message,
        fmean(found.payload_bytes),
        fmean(found.entropy_bytes),
        fmean(found.encode_ms),
        fmean(found.decode_ms),
        digest,
    )
