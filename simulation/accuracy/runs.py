"""One run: a case with one seed, played to its end. It keeps probabilities, so that any figure can follow."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.heads import Predictions
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.federation.alone import LocalTraining
from fedmedclip.simulation.federation.evaluation import (
    CLASSIFIERS,
    ZERO_SHOT,
    Examiner,
    Learning,
    mean_over_sites,
    tested,
)
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.federation import Federation
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.rounds import play
from fedmedclip.simulation.federation.targets import PublishedTarget
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

Probabilities = npt.NDArray[np.float32]


class RoundFigures(msgspec.Struct, frozen=True):
    """After a round: bytes of all sites in it, mean accuracy over the sites' tests, accuracy on global test.

    Joining counts to the first round. `global_shared` is None where there is no global test.
    """

    uplink_bytes: int
    downlink_bytes: int
    ensemble: float
    shared: float
    global_shared: float | None


class Run(msgspec.Struct, frozen=True):
    """A finished run. `parts` has float32 probabilities (images, classes) as bytes, by part and classifier.

    A part is a site's test split, `global_test`, or `global_test@SITE`: what that site's private head and
    ensemble make of the global test. `target_bytes` are those of the reference set, once per site. With
    a hospital left out the only part is all of its images.
    """

    case: str
    label: str
    left_out: str | None
    seed: int
    sites: int
    rounds: list[RoundFigures]
    parts: dict[str, dict[str, bytes]]
    uplink_by_message: dict[str, int]
    downlink_by_message: dict[str, int]
    target_bytes: int
    seconds: float

    def probabilities(self, part: str, classifier: str, classes: int) -> Probabilities | None:
        """Return float32 (images, classes), None where the method has no such classifier."""
        content = self.parts[part].get(classifier)
        return None if content is None else np.frombuffer(content, np.float32).reshape(-1, classes)


def run_case(
    case: Case,
    seed: int,
    pool: FeaturePool,
    targets: Mapping[str, Probabilities],
    folder: Path,
    on_round: Callable[[], None],
) -> Run:
    """Play a federation and keep what its heads say of the test images; working state lies below `folder`.

    `targets` are unlabelled embeddings float32 (n, D) by name, for cases that adapt to some. Raises
    InvalidInputError when the case leaves out a site that there is not, or the only one, or adapts to images
    that there are not.
    """
    started = time.monotonic()
    sites = pool.deal(seed).sites
    training = [site for site in sites if site.name != case.left_out]
    if not training or (case.left_out is not None and len(training) == len(sites)):
        raise InvalidInputError(f"site {case.left_out!r} cannot be left out of {len(sites)} sites")
    trains = case.method != ZERO_SHOT
    target = PublishedTarget(case.target, targets) if case.target is not None and trains else None
    examiner = Examiner(pool, case.method, case.ensemble)
    with closing(_begin(case, Trainer(_plan(case, seed), pool, target, case.masked), folder)) as learning:

        def score() -> tuple[float, float, float | None]:
            means = mean_over_sites([examiner.of_site(learning, site) for site in tested(training)])
            on_global = examiner.on_global_test(learning.shared_head())
            return means["ensemble"], means["shared"], None if on_global is None else round(on_global, 6)

        played = play(learning, case.rounds, lambda _: training, score, on_round)
        parts = _parts(case, examiner, learning, pool, sites)
    return Run(
        case.identity,
        case.label,
        case.left_out,
        seed,
        len(training),
        [RoundFigures(entry.uplink_bytes, entry.downlink_bytes, *entry.score) for entry in played.rounds],
        parts,
        played.uplink_by_message,
        played.downlink_by_message,
        target.size if target is not None and case.federated else 0,
        round(time.monotonic() - started, 2),
    )


def _plan(case: Case, seed: int) -> FederationPlan:
    codecs = case.uplink_codec, case.downlink_codec
    return FederationPlan(case.method, *codecs, case.rounds, seed, case.settings, floors=case.floors)


def _begin(case: Case, trainer: Trainer, folder: Path) -> Learning:
    """Return what is played, before its first round."""
    if case.method == ZERO_SHOT:
        return LocalTraining(None)
    return Federation(trainer, folder) if case.federated else LocalTraining(trainer)


def _parts(
    case: Case, examiner: Examiner, learning: Learning, pool: FeaturePool, sites: Sequence[VirtualSite]
) -> dict[str, dict[str, bytes]]:
    head = learning.shared_head()
    if case.left_out is not None:
        site = next(site for site in sites if site.name == case.left_out)
        assert head is not None
        found = examiner.predict(head, {}, pool.embeddings[site.images])
        return {site.name: _kept(found, ("zero_shot", "shared"))}
    parts = {}
    for site in tested(sites):
        found = examiner.at_site(learning, site.name, pool.embeddings[site.test])
        parts[site.name] = _kept(found, CLASSIFIERS)
    if (images := pool.global_test) is not None:
        if head is not None:
            found = examiner.predict(head, {}, images.embeddings)
            parts[GLOBAL_TEST] = _kept(found, ("zero_shot", "shared"))
        for site in sites:
            found = examiner.at_site(learning, site.name, images.embeddings)
            if found.private is not None:
                parts[f"{GLOBAL_TEST}@{site.name}"] = _kept(found, ("private", "ensemble"))
    return parts


def _kept(found: Predictions, classifiers: tuple[str, ...]) -> dict[str, bytes]:
    arrays: Mapping[str, Probabilities | None] = {name: getattr(found, name) for name in classifiers}
    return {
        name: np.ascontiguousarray(array, np.float32).tobytes()
        for name, array in arrays.items()
        if array is not None
    }
