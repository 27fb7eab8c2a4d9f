"""What all runs of the benchmark share: images, hospitals, and what each method's training is."""

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.rules.names import DEFAULT, DEFAULT_OF_STATISTICS
from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, Floors
from fedmedclip.protocol.heads.methods import USUAL_CODEC, codec_for, rounds_for
from fedmedclip.simulation.accuracy.evidence import joined
from fedmedclip.simulation.federation.experiment import (
    USUAL_ROUNDS,
    Experiment,
    Regime,
    shared_by_runs,
    with_codec,
)
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST, SERVER_REFERENCE
from fedmedclip.simulation.federation.source import Features
from fedmedclip.simulation.federation.targets import PublishedTarget, Target, target_digest
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import Indices, VirtualSite
from fedmedclip.simulation.newcomer.class_shares import NATURAL, resampled, shares_of
from fedmedclip.simulation.newcomer.labels import Labels, with_labels

Way = Literal["federated", "local-only", "pooled", "zero-shot"]
FEDERATED: Final = "federated"
LOCAL_ONLY: Final = "local-only"
POOLED: Final = "pooled"
WITHOUT_TRAINING: Final = "zero-shot"


class Case(NamedTuple):
    """What tells a run from others.

    `missing` is the class of which the newcomer has no labelled image, `shares` those of the classes among
    its images without labels (`simulation.newcomer.class_shares`).
    """

    way: Way
    method: str
    site: str
    labels: Labels
    seed: int
    missing: int | None = None
    shares: str = NATURAL


@dataclass(frozen=True)
class Study:
    """The hospitals' `features`; codec, rule (None: each method's default) and floors as at real ones.

    With `rounds` None there are `USUAL_ROUNDS`, or as many as the method needs; with `codec` None it is the
    usual one, or what suits the method.
    """

    features: Features
    codec: str | None
    rounds: int | None
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
            "rounds": self.rounds or f"{USUAL_ROUNDS}, or as many as the method needs",
            "codecs": common["codecs"] if self.codec else f"{USUAL_CODEC}, or what suits the method",
            "rule": self.rule or f"{DEFAULT}, {DEFAULT_OF_STATISTICS}",
        }

    def experiment(self, method: str, regime: Regime) -> Experiment:
        """Return what is played; methods that adapt do so to the reference set, if there is one."""
        adapts = site_method(method).adapts and SERVER_REFERENCE in self.features.unlabelled
        plain = Experiment(
            method=method,
            regime=regime,
            rounds=self.rounds_of(method),
            rule=self.rule if regime == FEDERATED else None,
            floors=self.floors,
            target=Target(SERVER_REFERENCE) if adapts else None,
        )
        return with_codec(plain, codec_for(method, self.codec))

    def rounds_of(self, method: str) -> int:
        """Return how many rounds a method is played."""
        return rounds_for(method, self.rounds, USUAL_ROUNDS) if method else 1

    def trainer(self, case: Case, regime: Regime = FEDERATED) -> Trainer:
        """Return what trains at the federation's sites, or in another regime."""
        experiment = self.experiment(case.method, regime)
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

    def unlabelled(self, case: Case) -> Indices:
        """Return the newcomer's other training images (M,): it has them without their labels.

        With other class shares than its own they are drawn again, as many.
        """
        site = next(site for site in self.sites(case.seed) if site.name == case.site)
        rest: Indices = np.setdiff1d(site.train, self.newcomer(case).train)
        if case.shares == NATURAL or not len(rest):
            return rest
        return resampled(
            case.shares, rest, self.pool.labels[rest], self.class_shares(case), case.site, case.seed
        )

    def class_shares(self, case: Case) -> npt.NDArray[np.float64]:
        """Return the class shares (C,) that the case has for the newcomer; the test images' where natural."""
        site, labels = self.newcomer(case._replace(labels="all")), self.pool.labels
        classes = len(self.pool.class_embeddings)
        if case.shares == NATURAL:
            return np.bincount(labels[site.test], minlength=classes) / len(site.test)
        there = np.intersect1d(labels[site.train], labels[site.test])
        return shares_of(case.shares, there, classes, case.site, case.seed)

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
