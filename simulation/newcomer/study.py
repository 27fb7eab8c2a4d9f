"""What all runs of the benchmark share: images, hospitals, and what each method's training is."""

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np

from fedmedclip.aggregator.rules.names import DEFAULT, DEFAULT_OF_STATISTICS
from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, Floors
from fedmedclip.simulation.accuracy.evidence import joined
from fedmedclip.simulation.federation.experiment import Experiment, Regime, shared_by_runs, with_codec
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST, SERVER_REFERENCE
from fedmedclip.simulation.federation.source import Features
from fedmedclip.simulation.federation.targets import PublishedTarget, Target, target_digest
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import Indices, VirtualSite
from fedmedclip.simulation.newcomer.labels import Labels, with_labels

Way = Literal["federated", "local-only", "pooled", "zero-shot"]
FEDERATED: Final = "federated"
LOCAL_ONLY: Final = "local-only"
POOLED: Final = "pooled"
WITHOUT_TRAINING: Final = "zero-shot"


class Case(NamedTuple):
    """What tells a run from others. `missing` is the class that the newcomer has never seen."""

    way: Way
    method: str
    site: str
    labels: Labels
    seed: int
    missing: int | None = None


@dataclass(frozen=True)
class Study:
    """The hospitals' `features`; codec, rule (None: each method's default) and floors as at real ones."""

    features: Features
    codec: str
    rounds: int
    rule: str | None = None
    floors: Floors = DEFAULT_FLOORS
    _dealt: dict[int, tuple[VirtualSite, ...]] = field(default_factory=dict)

    @property
    def pool(self) -> FeaturePool:
        """All images of the hospitals."""
        return self.features.pool

    def description(self) -> dict[str, object]:
        """Return everything that a run's numbers depend on, except its case."""
        common = shared_by_runs(
            self.experiment("fedmedclip", FEDERATED), "method", "regime", "rule", "target"
        )
        return {
            **common,
            "features": self.pool.digest.hex(),
            "targets": target_digest(self.features.unlabelled),
            "rule": self.rule or f"{DEFAULT}, {DEFAULT_OF_STATISTICS}",
        }

    def experiment(self, method: str, regime: Regime) -> Experiment:
        """Return what is played; methods that adapt do so to the reference set, if there is one."""
        adapts = site_method(method).adapts and SERVER_REFERENCE in self.features.unlabelled
        plain = Experiment(
            method=method,
            regime=regime,
            rounds=self.rounds,
            rule=self.rule if regime == FEDERATED else None,
            floors=self.floors,
            target=Target(SERVER_REFERENCE) if adapts else None,
        )
        return with_codec(plain, self.codec)

    def trainer(self, case: Case) -> Trainer:
        """Return what trains at the federation's sites."""
        experiment = self.experiment(case.method, FEDERATED)
        target = experiment.target
        published = None if target is None else PublishedTarget(target, self.features.unlabelled)
        return Trainer(experiment.plan(case.seed), self.pool, published)

    def sites(self, seed: int) -> tuple[VirtualSite, ...]:
        """Return the hospitals of a seed, with their splits."""
        if seed not in self._dealt:
            self._dealt[seed] = self.pool.deal(seed).sites
        return self._dealt[seed]

    def newcomer(self, case: Case) -> VirtualSite:
        """Return the newcomer with its labelled images; at the global test it has none."""
        if case.site == GLOBAL_TEST:
            nothing = np.empty(0, dtype=np.int64)
            return VirtualSite(case.site, nothing, nothing, nothing)
        site = next(site for site in self.sites(case.seed) if site.name == case.site)
        return with_labels(
            site, case.labels, self.pool.labels, self.pool.groups, case.seed, missing=case.missing
        )

    def others(self, case: Case) -> tuple[VirtualSite, ...]:
        """Return the other hospitals, with all of their images."""
        return tuple(site for site in self.sites(case.seed) if site.name != case.site)

    def members(self, case: Case) -> tuple[VirtualSite, ...]:
        """Return the other hospitals and the newcomer, in the order of their names."""
        others, newcomer = self.others(case), self.newcomer(case)
        if not len(newcomer.train):
            return others
        return tuple(sorted([*others, newcomer], key=lambda site: site.name))

    def test(self, case: Case) -> LabelledFeatures:
        """Return the newcomer's test images."""
        if case.site == GLOBAL_TEST:
            assert self.pool.global_test is not None
            return self.pool.global_test
        test = self.newcomer(case).test
        return LabelledFeatures(self.pool.embeddings[test], self.pool.labels[test])

    def groups(self, case: Case) -> Indices:
        """Return the groups (n,) of the newcomer's test images; the global test's are numbered apart."""
        if case.site == GLOBAL_TEST:
            assert self.pool.global_groups is not None
            # Copies need not be named as such.
            _, copies = np.unique(self.test(case).embeddings, axis=0, return_inverse=True)
            return joined(self.pool.global_groups, copies.ravel())
        groups: Indices = self.pool.groups[self.newcomer(case).test]
        return groups


def everyone_takes_part(case: Case) -> bool:
    """Return whether all hospitals have all of their images, so that it is no matter who came last."""
    return case.site == GLOBAL_TEST or (case.labels == "all" and case.missing is None)
