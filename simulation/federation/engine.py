"""Plays an experiment in this process: the one runner of all benchmarks.

    with begin(experiment, pool, seed, folder) as run:
        played = run.play(score, on_round)
        run.examiner.of_site(played.heads, site)

After each round `score` is asked what it finds of `run.learning`, which has the newest heads.
What is trained, coded and sent is production code; a test holds a federation's heads and messages, bit for
bit, against those of production coordinator and agents.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.learning.version_head import adapts_to_versions
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.adversary import Adversary
from fedmedclip.simulation.federation.alone import LocalTraining, PooledTraining
from fedmedclip.simulation.federation.coders import CodecMeasurements, Coder
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT, Examiner, Heads, Learning
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.rounds import PlayedRounds, play
from fedmedclip.simulation.federation.selection import BestOnValidation
from fedmedclip.simulation.federation.targets import PublishedTarget
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.version_heads import VersionHeads
from fedmedclip.simulation.federation.virtual_sites import VirtualSite, VirtualSites

Embeddings = npt.NDArray[np.float32]
Score = TypeVar("Score")


@dataclass(frozen=True)
class Extras:
    """What a benchmark may put in: its own `coder`, what records that coder, and who is hostile."""

    coder: Coder | None = None
    measurements: CodecMeasurements | None = None
    adversary: Adversary | None = None


@dataclass(frozen=True)
class Played(Generic[Score]):
    """All rounds, and the heads that are the experiment's result, with the round that they are of."""

    rounds: PlayedRounds[Score]
    heads: Heads
    selected: int


@dataclass(frozen=True)
class ExperimentRun:
    """A run that has begun. `sites` are all, `training` those that train; `learning` has the newest heads.

    `examiner` classifies with the method's heads, `trainer` makes them. `target` is what the sites adapt to,
    if anything.
    """

    experiment: Experiment
    pool: FeaturePool
    seed: int
    sites: VirtualSites
    training: VirtualSites
    learning: Learning
    examiner: Examiner
    trainer: Trainer
    target: PublishedTarget | None = None

    def play(self, score: Callable[[], Score], on_round: Callable[[], None]) -> Played[Score]:
        """Play all rounds; `score` is asked after each, then `on_round` is told.

        Raises InvalidInputError when the floors let no site send, or there are no validation images to
        select by; AggregationError and HeadError where aggregator or sites cannot go on.
        """
        if self.experiment.select == "last":
            rounds = self._play(score, on_round)
            return Played(rounds, self.learning, self.experiment.rounds)
        best = BestOnValidation(self.examiner, self.learning, self.training.sites, self.sites.sites)

        def scored() -> Score:
            best.look()
            return score()

        rounds = self._play(scored, on_round)
        return Played(rounds, best.heads, best.round)

    def _play(self, score: Callable[[], Score], on_round: Callable[[], None]) -> PlayedRounds[Score]:
        return play(self.learning, self.experiment.rounds, self._participants, score, on_round)

    def _participants(self, number: int) -> Sequence[VirtualSite]:
        drawn = self.experiment.sites_per_round if self.experiment.federated else None
        return self.training.participants(drawn, self.seed, number)


@contextmanager
def begin(
    experiment: Experiment,
    pool: FeaturePool,
    seed: int,
    folder: Path | None,
    *,
    targets: Mapping[str, Embeddings] | None = None,
    sites: VirtualSites | None = None,
    ensemble: EnsembleRule | None = None,
    extras: Extras = Extras(),
) -> Iterator[ExperimentRun]:
    """Hold an experiment ready for its first round; working state lies below `folder` while it lasts.

    `targets` are unlabelled embeddings float32 (n, D) by name, for methods that adapt. `sites` are other
    sites than the experiment deals. The heads vote as the method has it, or by `ensemble`. Raises
    InvalidInputError when the experiment leaves out a site that there is not, or the only one, adapts to
    images that there are not, or has a rule that does not suit.
    """
    sites = sites or experiment.dealing.deal(pool, seed)
    training = _without(sites, experiment.left_out)
    trains = experiment.method != ZERO_SHOT
    published = experiment.target if trains else None
    target = None if published is None else PublishedTarget(published, targets or {})
    trainer = Trainer(experiment.plan(seed), pool, target, experiment.masked)
    examiner = Examiner(pool, experiment.method, ensemble)
    with closing(_learning(experiment, trainer, training.sites, folder, extras)) as begun:
        learning: Learning = begun
        if trains and adapts_to_versions(experiment.method):
            learning = VersionHeads(begun, trainer, _places(begun, sites))
        yield ExperimentRun(experiment, pool, seed, sites, training, learning, examiner, trainer, target)


def _places(learning: Learning, sites: VirtualSites) -> dict[str, VirtualSite]:
    """Return where the images lie that a site's private head is made of, by its name."""
    if isinstance(learning, PooledTraining):
        return dict.fromkeys((site.name for site in sites.sites), learning.place)
    return {site.name: site for site in sites.sites}


def _without(sites: VirtualSites, left_out: str | None) -> VirtualSites:
    if left_out is None:
        return sites
    training = tuple(site for site in sites.sites if site.name != left_out)
    if not training or len(training) == len(sites.sites):
        raise InvalidInputError(f"site {left_out!r} cannot be left out of {len(sites.sites)} sites")
    return VirtualSites(training, sites.left_out)


def _learning(
    experiment: Experiment,
    trainer: Trainer,
    training: Sequence[VirtualSite],
    folder: Path | None,
    extras: Extras,
) -> Learning:
    if experiment.method == ZERO_SHOT:
        return LocalTraining(None)
    if experiment.regime == "local-only":
        return LocalTraining(trainer)
    if experiment.regime == "pooled":
        return PooledTraining(trainer, training)
    return Federation(trainer, folder, extras.coder, extras.measurements, extras.adversary)
