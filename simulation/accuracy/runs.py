"""One run: a case with one seed, played to its end. It keeps probabilities, so that any figure can follow."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.heads import Predictions
from fedmedclip.edge_client.learning.version_head import adapts_to_versions
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.federation.alone import POOLED
from fedmedclip.simulation.federation.engine import ExperimentRun, begin
from fedmedclip.simulation.federation.evaluation import CLASSIFIERS, ZERO_SHOT, Heads, mean_over_sites, tested
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST

Probabilities = npt.NDArray[np.float32]

ADAPTED = "adapted"
SCORED = (*CLASSIFIERS, ADAPTED)
"""All that is scored; `adapted` is a head made of the shared one and the tested images, without labels."""

FORMAT = 2
"""Of kept runs; another number where their fields differ."""


class RoundFigures(msgspec.Struct, frozen=True):
    """After a round: bytes of the sites in it, mean accuracy over the sites' tests, accuracy on global test.

    Joining counts to the first round. `participants` is how many sites took part. `global_shared` is None
    where there is no global test.
    """

    participants: int
    uplink_bytes: int
    downlink_bytes: int
    ensemble: float
    shared: float
    global_shared: float | None


class Run(msgspec.Struct, frozen=True):
    """A finished run. `parts` has float32 probabilities (images, classes) as bytes, by part and classifier.

    A part is a site's test split, `global_test`, or `global_test@SITE`: what that site's private head and
    ensemble make of the global test (`global_test@pooled` for heads that are trained in one place).
    `selected_round` is the round whose heads these are. `target_bytes` are those of the reference set, once
    per site. With a hospital left out the only part is all of its images.
    """

    case: str
    label: str
    left_out: str | None
    seed: int
    sites: int
    rounds: list[RoundFigures]
    selected_round: int
    parts: dict[str, dict[str, bytes]]
    uplink_by_message: dict[str, int]
    downlink_by_message: dict[str, int]
    target_bytes: int
    seconds: float

    @property
    def turns(self) -> int:
        """How often a site took part in a round."""
        return sum(figures.participants for figures in self.rounds)

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
    """Play a case and keep what its heads say of the test images; working state lies below `folder`.

    `targets` are unlabelled embeddings float32 (n, D) by name, for cases that adapt to some. Raises
    InvalidInputError as `begin` and `ExperimentRun.play` do.
    """
    started = time.monotonic()
    with begin(case, pool, seed, folder, targets=targets, ensemble=case.ensemble) as run:

        def score() -> tuple[float, float, float | None]:
            means = mean_over_sites(
                [run.examiner.of_site(run.learning, site) for site in tested(run.training.sites)]
            )
            on_global = run.examiner.on_global_test(run.learning.shared_head())
            return means["ensemble"], means["shared"], None if on_global is None else round(on_global, 6)

        played = run.play(score, on_round)
        parts = _parts(case, run, played.heads)
    rounds = played.rounds
    return Run(
        case.identity,
        case.label,
        case.left_out,
        seed,
        len(run.training.sites),
        [
            RoundFigures(entry.sites, entry.uplink_bytes, entry.downlink_bytes, *entry.score)
            for entry in rounds.rounds
        ],
        played.selected,
        parts,
        rounds.uplink_by_message,
        rounds.downlink_by_message,
        run.target.size if run.target is not None and case.federated else 0,
        round(time.monotonic() - started, 2),
    )


def _parts(case: Case, run: ExperimentRun, heads: Heads) -> dict[str, dict[str, bytes]]:
    pool, examiner, sites = run.pool, run.examiner, run.sites.sites
    head = heads.shared_head()
    if case.left_out is not None:
        site = next(site for site in sites if site.name == case.left_out)
        assert head is not None
        found = examiner.predict(head, {}, pool.embeddings[site.images])
        adapted = _adapted(run, head, site.name, pool.embeddings[site.images])
        return {site.name: _kept(found, ("zero_shot", "shared")) | adapted}
    parts = {}
    for site in tested(sites):
        found = examiner.at_site(heads, site.name, pool.embeddings[site.test])
        parts[site.name] = _kept(found, CLASSIFIERS)
    if (images := pool.global_test) is not None:
        if head is not None:
            found = examiner.predict(head, {}, images.embeddings)
            adapted = _adapted(run, head, GLOBAL_TEST, images.embeddings)
            parts[GLOBAL_TEST] = _kept(found, ("zero_shot", "shared")) | adapted
        everyone = {site.name: site.name for site in sites}
        for name, site_name in ({POOLED: sites[0].name} if case.regime == "pooled" else everyone).items():
            found = examiner.at_site(heads, site_name, images.embeddings)
            if found.private is not None:
                parts[f"{GLOBAL_TEST}@{name}"] = _kept(found, ("private", "ensemble"))
    return parts


def _adapted(
    run: ExperimentRun, head: NamedArrays, place: str, embeddings: Probabilities
) -> dict[str, bytes]:
    """Return what is made of images without labels; nothing for a method that makes no such head."""
    method = run.experiment.method
    if method == ZERO_SHOT or not adapts_to_versions(method):
        return {}
    private = run.trainer.head_without_labels(place, head, embeddings)
    found = run.examiner.predict(head, private, embeddings)
    return {ADAPTED: np.ascontiguousarray(found.ensemble, np.float32).tobytes()}


def _kept(found: Predictions, classifiers: tuple[str, ...]) -> dict[str, bytes]:
    arrays: Mapping[str, Probabilities | None] = {name: getattr(found, name) for name in classifiers}
    return {
        name: np.ascontiguousarray(array, np.float32).tobytes()
        for name, array in arrays.items()
        if array is not None
    }
