"""One run: a newcomer with so many labelled images, and what a method makes of its test images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.heads import Predictions
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, LEAST_TO_TRAIN, NO_FLOORS, Floors
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.accuracy.results import joined
from fedmedclip.simulation.federation.alone import LocalTraining
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT, Examiner
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST, SERVER_REFERENCE
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.source import Features
from fedmedclip.simulation.federation.targets import PublishedTarget, Target, target_digest
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import Indices, VirtualSite
from fedmedclip.simulation.newcomer.labels import Labels, with_labels
from fedmedclip.simulation.newcomer.play import Played, play_alone, play_federation, train_beside

Way = Literal["federated", "local-only", "pooled", "zero-shot"]
FEDERATED: Final = "federated"
LOCAL_ONLY: Final = "local-only"
POOLED: Final = "pooled"
WITHOUT_TRAINING: Final = "zero-shot"

_PLAYED_KEPT = 2
"""The federation of all hospitals, and that of all but the newcomer."""


class Case(NamedTuple):
    """What tells a run from others. `missing` is the class that the newcomer has never seen."""

    way: Way
    method: str
    site: str
    labels: Labels
    seed: int
    missing: int | None = None


class Run(msgspec.Struct, frozen=True):
    """A finished run: the class that each test image is called by, in the order of the site's test part.

    `images` counts the newcomer's training images of each class. `sends` says whether its updates were part
    of the shared head, `classifier` what answers: `ensemble` of both heads, `shared` alone, or `zero_shot`.
    """

    case: Case
    answers: list[int]
    images: list[int]
    sends: bool
    classifier: str


@dataclass
class Experiment:
    """What all runs of a benchmark share; `features` by the hospitals, `rule` and `floors` as at real ones.

    The federations played last are kept, for the newcomers beside them, and so are the heads of all images
    in one place.
    """

    features: Features
    codec: str
    rounds: int
    rule: str | None = None
    floors: Floors = DEFAULT_FLOORS
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    _dealt: dict[int, tuple[VirtualSite, ...]] = field(default_factory=dict)
    _played: dict[tuple[str, int, str | None], Played] = field(default_factory=dict)
    _pooled: dict[tuple[str, int], tuple[NamedArrays, NamedArrays]] = field(default_factory=dict)

    @property
    def pool(self) -> FeaturePool:
        """All images of the hospitals."""
        return self.features.pool

    def description(self) -> dict[str, object]:
        """Return everything that a run's numbers depend on, except its case."""
        return {
            "features": self.pool.digest.hex(),
            "targets": target_digest(self.features.unlabelled),
            "codec": self.codec,
            "rounds": self.rounds,
            "rule": self.rule,
            "floors": msgspec.to_builtins(self.floors),
            "training": msgspec.to_builtins(self.settings),
        }

    def trainer(self, method: str, seed: int, floors: Floors) -> Trainer:
        """Return what trains at every site; methods that adapt do so to a reference set, if there is one."""
        plan = FederationPlan(
            method, *codecs_of(self.codec), self.rounds, seed, self.settings, self.rule, floors=floors
        )
        unlabelled = self.features.unlabelled
        adapts = site_method(method).adapts and SERVER_REFERENCE in unlabelled
        return Trainer(
            plan, self.pool, PublishedTarget(Target(SERVER_REFERENCE), unlabelled) if adapts else None
        )

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

    def hospitals(self, case: Case) -> tuple[VirtualSite, ...]:
        """Return the others, with all of their images."""
        return tuple(site for site in self.sites(case.seed) if site.name != case.site)

    def test(self, case: Case) -> LabelledFeatures:
        """Return the newcomer's test images."""
        if case.site == GLOBAL_TEST:
            assert self.pool.global_test is not None
            return self.pool.global_test
        test = self.newcomer(case).test
        return LabelledFeatures(self.pool.embeddings[test], self.pool.labels[test])

    def groups(self, case: Case) -> Indices:
        """Return the groups (n,) of the newcomer's test images; those of the global test have others."""
        if case.site == GLOBAL_TEST:
            assert self.pool.global_groups is not None
            # Copies need not be named as such.
            _, copies = np.unique(self.test(case).embeddings, axis=0, return_inverse=True)
            return joined(self.pool.global_groups, copies.ravel())
        groups: Indices = self.pool.groups[self.newcomer(case).test]
        return groups

    def played(self, case: Case, sites: Sequence[VirtualSite], left_out: str | None, folder: Path) -> Played:
        """Return the federation of these hospitals with all of their images, played unless it was before."""
        key = case.method, case.seed, left_out
        found = self._played.pop(key, None)
        if found is None:
            trainer = self.trainer(case.method, case.seed, self.floors)
            found = play_federation(trainer, sites, folder, lambda: None)
        self._played[key] = found
        for oldest in list(self._played)[:-_PLAYED_KEPT]:
            del self._played[oldest]
        return found

    def pooled(
        self, case: Case, train: Callable[[], tuple[NamedArrays, NamedArrays]]
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return the heads of all hospitals' images in one place, trained when they were not before."""
        key = case.method, case.seed
        if key not in self._pooled:
            self._pooled.clear()
            self._pooled[key] = train()
        return self._pooled[key]


def run_case(experiment: Experiment, case: Case, folder: Path, on_round: Callable[[], None]) -> Run:
    """Train what the case asks for and classify the newcomer's test images.

    Raises InvalidInputError where the floors let no hospital send.
    """
    newcomer = experiment.newcomer(case)
    shared, private, sends = _heads(experiment, case, newcomer, folder, on_round)
    images = experiment.test(case).embeddings
    method = ZERO_SHOT if shared is None else case.method
    found = Examiner(experiment.pool, method).predict(shared or {}, private, images)
    classes = len(experiment.pool.class_embeddings)
    return Run(
        case,
        found.ensemble.argmax(axis=1).tolist(),
        np.bincount(experiment.pool.labels[newcomer.train], minlength=classes).tolist(),
        sends,
        _classifier(method, found),
    )


def _heads(
    experiment: Experiment,
    case: Case,
    newcomer: VirtualSite,
    folder: Path,
    on_round: Callable[[], None],
) -> tuple[NamedArrays | None, NamedArrays, bool]:
    """Return the shared head (None: zero-shot answers), the private one, and whether the newcomer sends."""
    match case.way:
        case "federated":
            return _federated(experiment, case, newcomer, folder, on_round)
        case "pooled":
            return *_pooled(experiment, case, newcomer, on_round), False
        case "local-only" if len(newcomer.train) >= LEAST_TO_TRAIN:
            return *_alone(experiment, case, newcomer, on_round), False
        case _:
            return None, {}, False


def _federated(
    experiment: Experiment,
    case: Case,
    newcomer: VirtualSite,
    folder: Path,
    on_round: Callable[[], None],
) -> tuple[NamedArrays, NamedArrays, bool]:
    trainer = experiment.trainer(case.method, case.seed, experiment.floors)
    others = experiment.hospitals(case)
    if case.site == GLOBAL_TEST:
        return experiment.played(case, others, None, folder).shared[-1], {}, False
    if len(newcomer.train) < LEAST_TO_TRAIN or trainer.contribution(newcomer).withheld:
        shared = experiment.played(case, others, case.site, folder).shared
        return shared[-1], train_beside(trainer, newcomer, shared, on_round), False
    members = sorted([*others, newcomer], key=lambda site: site.name)
    if case.labels == "all" and case.missing is None:
        everyone = experiment.played(case, members, None, folder)
        return everyone.shared[-1], everyone.private[newcomer.name], True
    whole = play_federation(trainer, members, folder, on_round)
    return whole.shared[-1], whole.private[newcomer.name], True


def _alone(
    experiment: Experiment, case: Case, site: VirtualSite, on_round: Callable[[], None]
) -> tuple[NamedArrays, NamedArrays]:
    """Train with nobody to send to: no floor keeps anything back."""
    trainer = experiment.trainer(case.method, case.seed, NO_FLOORS)
    return play_alone(LocalTraining(trainer), site, experiment.rounds, on_round)


def _pooled(
    experiment: Experiment, case: Case, newcomer: VirtualSite, on_round: Callable[[], None]
) -> tuple[NamedArrays, NamedArrays]:
    everything = _in_one_place([*experiment.hospitals(case), newcomer])
    if case.site != GLOBAL_TEST and (case.labels != "all" or case.missing is not None):
        return _alone(experiment, case, everything, on_round)
    # All images of all hospitals, whoever joins last.
    return experiment.pooled(case, lambda: _alone(experiment, case, everything, on_round))


def _in_one_place(sites: Sequence[VirtualSite]) -> VirtualSite:
    parts: Mapping[str, Indices] = {
        part: np.sort(np.concatenate([getattr(site, part) for site in sites]))
        for part in ("train", "validation", "test")
    }
    return VirtualSite(POOLED, parts["train"], parts["validation"], parts["test"])


def _classifier(method: str, found: Predictions) -> str:
    if method == ZERO_SHOT:
        return "zero_shot"
    return "shared" if found.private is None else "ensemble"
