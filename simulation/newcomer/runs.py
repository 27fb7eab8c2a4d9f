"""One run: a newcomer with so many labelled images, and what a method makes of its test images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from fedmedclip.edge_client.heads.heads import Predictions
from fedmedclip.edge_client.learning.floors import LEAST_TO_TRAIN
from fedmedclip.edge_client.learning.version_head import adapts_to_versions
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.engine import begin
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT, Examiner
from fedmedclip.simulation.federation.experiment import Regime
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.virtual_sites import VirtualSite, VirtualSites
from fedmedclip.simulation.newcomer.play import Played, play_whole, train_beside
from fedmedclip.simulation.newcomer.study import (
    FEDERATED,
    LOCAL_ONLY,
    POOLED,
    Case,
    Study,
    everyone_takes_part,
)

_KEPT = 3
"""The federation of all hospitals, that of all but the newcomer, and all images in one place."""

OnRound = Callable[[], None]


class Run(msgspec.Struct, frozen=True):
    """A finished run: the class that each test image is called by, in the order of the site's test part.

    `answers` are of all that the newcomer has, `shared_answers` of its shared head alone.
    `images` counts the newcomer's labelled training images of each class, `unlabelled` those that a method
    adapts to beside them. `sends` says whether its updates were part
    of the shared head, `classifier` what answers: `ensemble` of both heads, `shared` alone, or `zero_shot`.
    """

    case: Case
    answers: list[int]
    shared_answers: list[int]
    images: list[int]
    sends: bool
    classifier: str
    unlabelled: int = 0


@dataclass(frozen=True)
class Heads:
    """What a newcomer answers with: the `shared` head (None: zero-shot answers) and the `private` one."""

    shared: NamedArrays | None
    private: NamedArrays
    sends: bool = False


@dataclass
class Newcomers:
    """Runs the cases of a study; working state lies below `folder` while a run lasts.

    What was played last is kept, for the newcomers that come to the same federation.
    """

    study: Study
    folder: Path
    _kept: dict[tuple[Regime, str, int, str | None], Played] = field(default_factory=dict)

    def run(self, case: Case, on_round: OnRound) -> Run:
        """Train what the case asks for and classify the newcomer's test images.

        Raises InvalidInputError where the floors let no hospital send.
        """
        study = self.study
        heads = self._heads(case, on_round)
        method = ZERO_SHOT if heads.shared is None else case.method
        examiner = Examiner(study.pool, method)
        found = examiner.predict(heads.shared or {}, heads.private, study.test(case).embeddings)
        labels, classes = study.pool.labels[study.newcomer(case).train], len(study.pool.class_embeddings)
        return Run(
            case,
            found.ensemble.argmax(axis=1).tolist(),
            found.shared.argmax(axis=1).tolist(),
            np.bincount(labels, minlength=classes).tolist(),
            heads.sends,
            _classifier(method, found),
            self._unlabelled(case),
        )

    def _unlabelled(self, case: Case) -> int:
        if case.way not in (FEDERATED, LOCAL_ONLY) or not adapts_to_versions(case.method):
            return 0
        return len(self.study.test(case).labels if case.site == GLOBAL_TEST else self.study.unlabelled(case))

    def _heads(self, case: Case, on_round: OnRound) -> Heads:
        newcomer = self.study.newcomer(case)
        match case.way:
            case "federated":
                return self._federated(case, newcomer, on_round)
            case "pooled":
                played = self._played(POOLED, case, self.study.members(case), on_round)
                return Heads(played.shared[-1], next(iter(played.private.values())))
            case "local-only" if len(newcomer.train) >= LEAST_TO_TRAIN:
                alone = self._play(LOCAL_ONLY, case, [newcomer], on_round)
                return Heads(alone.shared[-1], self._private(case, newcomer, alone, LOCAL_ONLY))
            case _:
                return Heads(None, {})

    def _federated(self, case: Case, newcomer: VirtualSite, on_round: OnRound) -> Heads:
        study = self.study
        trainer = study.trainer(case)
        if len(newcomer.train) < LEAST_TO_TRAIN or trainer.contribution(newcomer).withheld:
            shared = self._played(FEDERATED, case, study.others(case), on_round).shared
            if case.site == GLOBAL_TEST and adapts_to_versions(case.method):
                images = study.test(case).embeddings
                return Heads(shared[-1], trainer.head_without_labels(case.site, shared[-1], images))
            unlabelled = study.unlabelled(case) if case.site != GLOBAL_TEST else None
            return Heads(shared[-1], train_beside(trainer, newcomer, shared, on_round, unlabelled))
        played = self._played(FEDERATED, case, study.members(case), on_round)
        return Heads(played.shared[-1], self._private(case, newcomer, played, FEDERATED), sends=True)

    def _private(self, case: Case, newcomer: VirtualSite, played: Played, regime: Regime) -> NamedArrays:
        """Return the private head of a newcomer that took part, made also of its images without labels."""
        if not adapts_to_versions(case.method):
            return played.private[newcomer.name]
        trainer = self.study.trainer(case, regime)
        return trainer.own_head(newcomer, played.shared[-1], self.study.unlabelled(case))

    def _played(self, regime: Regime, case: Case, sites: Iterable[VirtualSite], on_round: OnRound) -> Played:
        """Play it, unless these are hospitals with all of their images and it was played before."""
        sites = list(sites)
        everyone = everyone_takes_part(case)
        if not everyone and case.site in {site.name for site in sites}:
            return self._play(regime, case, sites, on_round)
        key = regime, case.method, case.seed, None if everyone else case.site
        played = self._kept.pop(key, None) or self._play(regime, case, sites, on_round)
        self._kept[key] = played
        for oldest in list(self._kept)[:-_KEPT]:
            del self._kept[oldest]
        return played

    def _play(self, regime: Regime, case: Case, sites: Iterable[VirtualSite], on_round: OnRound) -> Played:
        study = self.study
        with begin(
            study.experiment(case.method, regime),
            study.pool,
            case.seed,
            self.folder,
            targets=study.features.unlabelled,
            sites=VirtualSites(tuple(sites), 0),
        ) as run:
            return play_whole(run, on_round)


def _classifier(method: str, found: Predictions) -> str:
    if method == ZERO_SHOT:
        return "zero_shot"
    return "shared" if found.private is None else "ensemble"
