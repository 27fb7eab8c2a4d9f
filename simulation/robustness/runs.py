"""One run: a method, so many sites, a rule, an attack and a seed, played to its end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.protocol.errors import AggregationError, HeadError
from fedmedclip.protocol.heads.methods import USUAL_CODEC, codec_for, rounds_for
from fedmedclip.simulation.federation.dealing import Dealing
from fedmedclip.simulation.federation.engine import Extras, begin
from fedmedclip.simulation.federation.experiment import Experiment, shared_by_runs, with_codec
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.virtual_sites import VirtualSites
from fedmedclip.simulation.robustness.attacks import NO_ATTACK, Attackers, attack_named, hostile_sites

USUAL_ROUNDS = 10
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
class Arena:
    """What all runs of a benchmark share: the images, and a federation as every case begins with it.

    `rounds` and `codec` are those that are asked for; with None there are `USUAL_ROUNDS`, or as many as the
    method needs, and the codec is the usual one, or what suits the method.
    """

    pool: FeaturePool
    common: Experiment
    rounds: int | None
    codec: str | None

    def rounds_of(self, method: str) -> int:
        """Return how many rounds a method is played."""
        return rounds_for(method, self.rounds, USUAL_ROUNDS)

    def deal(self, sites: int, seed: int) -> VirtualSites:
        """Return the sites of a seed, each with training and test images."""
        return self._dealing(sites).deal(self.pool, seed)

    def experiment(self, case: Case) -> Experiment:
        """Return what a case plays, beside its attack."""
        plain = msgspec.structs.replace(
            self.common,
            method=case.method,
            rounds=self.rounds_of(case.method),
            rule=None if case.rule == ALONE else case.rule,
            regime="local-only" if case.rule == ALONE else "federated",
            dealing=self._dealing(case.sites),
        )
        return with_codec(plain, codec_for(case.method, self.codec))

    def description(self) -> dict[str, object]:
        """Return everything that a run's numbers depend on, except its case."""
        return {
            "features": self.pool.digest.hex(),
            **shared_by_runs(self.common, "method", "rule", "regime", "sites"),
            "rounds": self.rounds or f"{USUAL_ROUNDS}, or as many as the method needs",
        }

    def _dealing(self, sites: int) -> Dealing:
        return msgspec.structs.replace(self.common.dealing, sites=sites)


def arena(
    pool: FeaturePool, codec: str | None, rounds: int | None, alpha: float, maximum_update_norm: float
) -> Arena:
    """Return what these options stand for.

    The sites are small by design, and what a floor keeps back attacks nobody: there are no floors.
    """
    common = Experiment(
        method="fedmedclip",
        rounds=rounds or USUAL_ROUNDS,
        maximum_update_norm=maximum_update_norm,
        floors=NO_FLOORS,
        # `sites` is each case's own.
        dealing=Dealing(1, alpha, within="parts"),
    )
    return Arena(pool, with_codec(common, codec or USUAL_CODEC), rounds, codec)


def run_case(arena: Arena, case: Case, folder: Path | None, on_round: Callable[[], None]) -> Run:
    """Play all rounds of a case; working state lies below `folder` while it lasts.

    Where the aggregator or the sites cannot go on, the rounds end, and the heads stay what they were.
    """
    sites = arena.deal(case.sites, case.seed)
    names = [site.name for site in sites.sites]
    hostile = hostile_sites(names, case.attackers, case.seed)
    shared: dict[str, list[float]] = {name: [] for name in names}
    ensemble: dict[str, list[float]] = {name: [] for name in names}
    zero_shot: dict[str, float] = {}
    stopped = ""
    experiment, limit = arena.experiment(case), arena.common.maximum_update_norm
    attacked = case.attack != NO_ATTACK
    adversary = Attackers(attack_named(case.attack), hostile, case.seed, limit) if attacked else None
    extras = Extras(adversary=adversary)
    with begin(experiment, arena.pool, case.seed, folder, sites=sites, extras=extras) as run:

        def score() -> None:
            for site in sites.sites:
                found = run.examiner.of_site(run.learning, site)
                shared[site.name].append(found["shared"])
                ensemble[site.name].append(found["ensemble"])
                zero_shot[site.name] = found["zero_shot"]

        try:
            run.play(score, on_round)
        except (AggregationError, HeadError) as error:
            done = len(shared[names[0]])
            stopped = f"round {done + 1}: {error}"
            for _ in range(done, experiment.rounds):
                score()
                on_round()
        refused = run.learning.refused if isinstance(run.learning, Federation) else 0
    return Run(case, sorted(hostile), shared, ensemble, zero_shot, refused, stopped)
