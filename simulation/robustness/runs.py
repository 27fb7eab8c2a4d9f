"""One run: a method, so many sites, a rule, an attack and a seed, played to its end."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.errors import AggregationError, HeadError
from fedmedclip.simulation.federation.alone import LocalTraining
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.evaluation import Examiner, Learning
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.resplit import resplit_sites
from fedmedclip.simulation.federation.rounds import play
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite
from fedmedclip.simulation.robustness.attacks import NO_ATTACK, Attackers, attack_named, hostile_sites

ALONE = "local-only"
"""Stands for a rule where every site trains for itself."""


class Case(NamedTuple):
    """What tells a run from others. `attackers` is 0 where `attack` is none."""

    method: str
    sites: int
    rule: str
    attack: str
    attackers: int
    seed: int


class Run(msgspec.Struct, frozen=True):
    """A finished run: accuracies (0 to 1) on each site's own test images after each round.

    `shared` are those of the shared head, `ensemble` those of what the site answers with, `zero_shot` those
    of the texts alone. `hostile` names the hostile sites, which have accuracies too. `refused` counts updates
    that the aggregator refused for their norm. `stopped` says why the rounds did not go on, empty where they
    did.
    """

    case: Case
    hostile: list[str]
    shared: dict[str, list[float]]
    ensemble: dict[str, list[float]]
    zero_shot: dict[str, float]
    refused: int
    stopped: str


@dataclass(frozen=True)
class Experiment:
    """What all runs of a benchmark share."""

    pool: FeaturePool
    codec: str
    rounds: int
    alpha: float
    maximum_update_norm: float
    settings: TrainingSettings = field(default_factory=TrainingSettings)

    def deal(self, sites: int, seed: int) -> tuple[VirtualSite, ...]:
        """Return the sites of a seed, each with training and test images."""
        hospitals = self.pool.deal(seed)
        return resplit_sites(hospitals, self.pool.labels, self.pool.groups, sites, self.alpha, seed).sites

    def description(self) -> dict[str, object]:
        """Return everything that a run's numbers depend on, except its case."""
        return {
            "features": self.pool.digest.hex(),
            "codec": self.codec,
            "rounds": self.rounds,
            "alpha": self.alpha,
            "maximum_update_norm": self.maximum_update_norm,
            "training": msgspec.to_builtins(self.settings),
        }


def run_case(experiment: Experiment, case: Case, folder: Path, on_round: Callable[[], None]) -> Run:
    """Play all rounds of a case; working state lies below `folder` while it lasts.

    Where the aggregator or the sites cannot go on, the rounds end, and the heads stay what they were.
    """
    sites = experiment.deal(case.sites, case.seed)
    examiner = Examiner(experiment.pool, case.method)
    hostile = hostile_sites([site.name for site in sites], case.attackers, case.seed)
    shared: dict[str, list[float]] = {site.name: [] for site in sites}
    ensemble: dict[str, list[float]] = {site.name: [] for site in sites}
    zero_shot: dict[str, float] = {}
    stopped = ""
    with closing(_begin(experiment, case, hostile, folder)) as learning:

        def score() -> None:
            for site in sites:
                found = examiner.of_site(learning, site)
                shared[site.name].append(found["shared"])
                ensemble[site.name].append(found["ensemble"])
                zero_shot[site.name] = found["zero_shot"]

        try:
            play(learning, experiment.rounds, lambda _: sites, score, on_round)
        except (AggregationError, HeadError) as error:
            done = len(shared[sites[0].name])
            stopped = f"round {done + 1}: {error}"
            for _ in range(done, experiment.rounds):
                score()
                on_round()
        refused = learning.refused if isinstance(learning, Federation) else 0
    return Run(case, sorted(hostile), shared, ensemble, zero_shot, refused, stopped)


def _begin(experiment: Experiment, case: Case, hostile: frozenset[str], folder: Path) -> Learning:
    """Return what is played, before its first round."""
    limit = experiment.maximum_update_norm
    plan = FederationPlan(
        case.method,
        *codecs_of(experiment.codec),
        experiment.rounds,
        case.seed,
        experiment.settings,
        None if case.rule == ALONE else case.rule,
        maximum_update_norm=limit,
        # The sites are small by design, and what a floor keeps back attacks nobody.
        floors=NO_FLOORS,
    )
    trainer = Trainer(plan, experiment.pool)
    if case.rule == ALONE:
        return LocalTraining(trainer)
    attacked = case.attack != NO_ATTACK
    adversary = Attackers(attack_named(case.attack), hostile, case.seed, limit) if attacked else None
    return Federation(trainer, folder, adversary=adversary)
