"""One run: a federation with one codec and one seed, played to its end and evaluated after each round."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import msgspec

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.simulation.federation.coders import CodecMeasurements, Coder, codecs_of
from fedmedclip.simulation.federation.engine import Extras, begin
from fedmedclip.simulation.federation.experiment import Experiment, shared_by_runs, with_codec
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.run_file import RunFile
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
class CodecTrial:
    """What all runs share: the images, and a federation whose codecs each run replaces with its own."""

    pool: FeaturePool
    experiment: Experiment

    def description(self) -> dict[str, object]:
        """Return everything that a run's numbers depend on, except its codec and seed."""
        return {"features": self.pool.digest.hex(), **shared_by_runs(self.experiment, "codecs")}


def open_runs(folder: Path, trial: CodecTrial) -> RunFile[Run, tuple[str, int]]:
    """Return the finished runs in a folder by codec and seed. Raises InvalidInputError as `RunFile` does."""
    return RunFile(folder / "runs.jsonl", trial.description(), Run, key_of=lambda run: (run.codec, run.seed))


def codec_choices(codecs: str) -> list[str]:
    """Read a list such as `int8,lowrank:rank=8,bits=4,sign/int8`. Raises InvalidInputError as `codecs_of`."""
    names = parse_names("--codecs", codecs)
    for name in names:
        codecs_of(name)
    return names


def run_federation(
    trial: CodecTrial, codecs: str, seed: int, folder: Path, on_round: Callable[[], None]
) -> Run:
    """Play all rounds with codecs of ours; working state lies below `folder` while it lasts."""
    experiment = with_codec(trial.experiment, codecs)
    return play_codec(CodecTrial(trial.pool, experiment), codecs, seed, folder, on_round)


def play_codec(
    trial: CodecTrial,
    label: str,
    seed: int,
    folder: Path,
    on_round: Callable[[], None],
    coder: Coder | None = None,
) -> Run:
    """Play all rounds with the experiment's own codecs, or another `coder`, and evaluate after each."""
    pool, found = trial.pool, CodecMeasurements()
    with begin(trial.experiment, pool, seed, folder, extras=Extras(coder, found)) as run:
        test = LabelledFeatures(pool.embeddings[run.sites.test], pool.labels[run.sites.test])

        def score() -> tuple[float, float | None]:
            head = run.learning.shared_head()
            assert head is not None
            return run.examiner.shared_accuracy(head, test), run.examiner.on_global_test(head)

        played = run.play(score, on_round)
        head = played.heads.shared_head()
        assert head is not None
    rounds = played.rounds
    return Run(
        label,
        seed,
        [
            Round(entry.sites, entry.uplink_bytes, entry.downlink_bytes, entry.exchanges, *entry.score)
            for entry in rounds.rounds
        ],
        rounds.sites_reached,
        rounds.uplink_by_message,
        rounds.downlink_by_message,
        fmean(found.payload_bytes),
        fmean(found.entropy_bytes),
        fmean(found.encode_ms),
        fmean(found.decode_ms),
        head_digest(head).hex(),
    )
