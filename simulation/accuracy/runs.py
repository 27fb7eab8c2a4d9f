"""One run: a case with one seed, played to its end. It keeps probabilities, so that any figure can follow."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import softmax
from fedmedclip.edge_client.heads.heads import Predictions, predict_probabilities
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.accuracy.cases import ZERO_SHOT, Case
from fedmedclip.simulation.accuracy.federation import Federation, LocalTraining, MemoryFederation, NoTraining
from fedmedclip.simulation.accuracy.trainer import Trainer
from fedmedclip.simulation.bandwidth.federation import FederationPlan
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.virtual_sites import VirtualSite, VirtualSites, natural_sites

Probabilities = npt.NDArray[np.float32]

GLOBAL = "global_test"
CLASSIFIERS = ("zero_shot", "shared", "private", "ensemble")


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


def deal(pool: FeaturePool, seed: int) -> VirtualSites:
    """Return the sites of a seed with their splits."""
    return natural_sites(pool.labels, pool.content_hashes, pool.sites, pool.site_names, seed)


def run_case(
    case: Case,
    seed: int,
    pool: FeaturePool,
    on_round: Callable[[], None],
    targets: Mapping[str, Probabilities] | None = None,
) -> Run:
    """Play a federation and keep what its heads say of the test images.

    `targets` are unlabelled embeddings float32 (n, D) by name, for cases that adapt to some. Raises
    InvalidInputError when the case leaves out a site that there is not, or the only one, or adapts to images
    that there are not.
    """
    started = time.monotonic()
    sites = deal(pool, seed).sites
    training = [site for site in sites if site.name != case.left_out]
    if not training or (case.left_out is not None and len(training) == len(sites)):
        raise InvalidInputError(f"site {case.left_out!r} cannot be left out of {len(sites)} sites")
    federation, target_bytes = _begin(case, seed, pool, training, targets or {})
    uplink: Counter[str] = Counter()
    downlink: Counter[str] = Counter()
    rounds = []
    for number in range(1, case.rounds + 1):
        federation.play_round(number)
        traffic = federation.take_traffic()
        uplink += traffic.uplink
        downlink += traffic.downlink
        accuracies = _accuracies(case, federation, pool, training)
        rounds.append(RoundFigures(traffic.uplink.total(), traffic.downlink.total(), *accuracies))
        on_round()
    return Run(
        case.identity,
        case.label,
        case.left_out,
        seed,
        len(training),
        rounds,
        _parts(case, federation, pool, sites),
        dict(sorted(uplink.items())),
        dict(sorted(downlink.items())),
        target_bytes,
        round(time.monotonic() - started, 2),
    )


def _begin(
    case: Case,
    seed: int,
    pool: FeaturePool,
    sites: list[VirtualSite],
    targets: Mapping[str, Probabilities],
) -> tuple[Federation, int]:
    """Return the federation before its first round, and the bytes of the reference set of a site."""
    if case.method == ZERO_SHOT:
        return NoTraining(), 0
    trainer = Trainer(case, seed, pool, targets)
    if not case.federated:
        return LocalTraining(trainer, sites), 0
    plan = FederationPlan(
        case.method, case.uplink_codec, case.downlink_codec, case.rounds, seed, len(sites), case.settings
    )
    return MemoryFederation(plan, pool, sites, trainer), trainer.target_bytes


def all_images(pool: FeaturePool, site: VirtualSite) -> npt.NDArray[np.int64]:
    """Return the numbers of all images of a site, in ascending order."""
    return np.sort(np.concatenate([site.train, site.validation, site.test]))


def _predict(
    case: Case, pool: FeaturePool, shared: NamedArrays, private: NamedArrays, embeddings: Probabilities
) -> Predictions:
    if case.method == ZERO_SHOT:
        found = softmax(pool.logit_scale * (unit_rows(embeddings) @ pool.class_embeddings.T))
        return Predictions(found, found, None, found, np.zeros(len(found), np.float32))
    return predict_probabilities(
        case.method, shared, private or None, embeddings, pool.class_embeddings, pool.logit_scale,
        case.ensemble,
    )  # fmt: skip


def _accuracies(
    case: Case, federation: Federation, pool: FeaturePool, sites: list[VirtualSite]
) -> tuple[float, float, float | None]:
    """Return mean accuracy of ensemble and shared head over the sites' tests, and on the global test."""
    ensemble, shared = [], []
    for site in _tested(sites):
        labels = pool.labels[site.test]
        found = _at_site(case, federation, pool, site, pool.embeddings[site.test])
        ensemble.append(_accuracy(found.ensemble, labels))
        shared.append(_accuracy(found.shared, labels))
    on_global = None
    if pool.global_test is not None and (head := federation.shared_head()) is not None:
        found = _predict(case, pool, head, {}, pool.global_test.embeddings)
        on_global = _accuracy(found.shared, pool.global_test.labels)
    return round(float(np.mean(ensemble)), 6), round(float(np.mean(shared)), 6), on_global


def _tested(sites: Sequence[VirtualSite]) -> list[VirtualSite]:
    return [site for site in sites if len(site.test)]


def _at_site(
    case: Case, federation: Federation, pool: FeaturePool, site: VirtualSite, embeddings: Probabilities
) -> Predictions:
    shared = federation.shared_head(site.name)
    assert shared is not None
    return _predict(case, pool, shared, federation.private_head(site.name), embeddings)


def _accuracy(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> float:
    return round(float((probabilities.argmax(axis=1) == labels).mean()), 6)


def _parts(
    case: Case, federation: Federation, pool: FeaturePool, sites: Sequence[VirtualSite]
) -> dict[str, dict[str, bytes]]:
    head = federation.shared_head()
    if case.left_out is not None:
        site = next(site for site in sites if site.name == case.left_out)
        assert head is not None
        found = _predict(case, pool, head, {}, pool.embeddings[all_images(pool, site)])
        return {site.name: _kept(found, ("zero_shot", "shared"))}
    parts = {}
    for site in _tested(sites):
        found = _at_site(case, federation, pool, site, pool.embeddings[site.test])
        parts[site.name] = _kept(found, CLASSIFIERS)
    if (images := pool.global_test) is not None:
        if head is not None:
            found = _predict(case, pool, head, {}, images.embeddings)
            parts[GLOBAL] = _kept(found, ("zero_shot", "shared"))
        for site in sites:
            found = _at_site(case, federation, pool, site, images.embeddings)
            if found.private is not None:
                parts[f"{GLOBAL}@{site.name}"] = _kept(found, ("private", "ensemble"))
    return parts


def _kept(found: Predictions, classifiers: tuple[str, ...]) -> dict[str, bytes]:
    arrays: Mapping[str, Probabilities | None] = {name: getattr(found, name) for name in classifiers}
    return {
        name: np.ascontiguousarray(array, np.float32).tobytes()
        for name, array in arrays.items()
        if array is not None
    }
