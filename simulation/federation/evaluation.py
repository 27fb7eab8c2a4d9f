"""What heads say of test images, and how often that is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.ensemble import EnsembleRule, softmax
from fedmedclip.edge_client.heads.heads import Predictions, predict_probabilities
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

Floats = npt.NDArray[np.float32]

ZERO_SHOT = "zero-shot"
CLASSIFIERS = ("zero_shot", "shared", "private", "ensemble")


class Heads(Protocol):
    """Who has which heads."""

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return the shared head that a site has, or one that did not take part (None); None: it has none."""

    def private_head(self, site: str) -> NamedArrays:
        """Return a site's private head; empty for a method without one."""


class Learning(Heads, Protocol):
    """What plays rounds and has heads. Call `play_round` with 1, 2, ... in turn, and close it when done."""

    def play_round(self, number: int, sites: Sequence[VirtualSite]) -> Traffic:
        """Let these sites make version `number`; return what travelled."""

    def close(self) -> None:
        """Release all files."""


@dataclass(frozen=True)
class Examiner:
    """Classifies with a method's heads; the heads vote as the method has it, or by `rule`."""

    pool: FeaturePool
    method: str
    rule: EnsembleRule | None = None

    def predict(self, shared: NamedArrays, private: NamedArrays, embeddings: Floats) -> Predictions:
        """Classify embeddings float32 (n, D); an empty `private` is none."""
        pool = self.pool
        if self.method == ZERO_SHOT:
            found = softmax(pool.logit_scale * (unit_rows(embeddings) @ pool.class_embeddings.T))
            return Predictions(found, found, None, found, np.zeros(len(found), np.float32))
        taken = site_method(self.method).taken(embeddings)
        return predict_probabilities(
            self.method, shared, private or None, taken, pool.class_embeddings, pool.logit_scale, self.rule
        )

    def at_site(self, heads: Heads, site: str, embeddings: Floats) -> Predictions:
        """Classify embeddings float32 (n, D) with the heads that a site has."""
        shared = heads.shared_head(site)
        assert shared is not None
        return self.predict(shared, heads.private_head(site), embeddings)

    def of_site(self, heads: Heads, site: VirtualSite) -> dict[str, float]:
        """Return the accuracy of each classifier that a site has on its test images, to 6 decimals."""
        found = self.at_site(heads, site.name, self.pool.embeddings[site.test])
        return accuracies(found, self.pool.labels[site.test])

    def on_global_test(self, head: NamedArrays | None) -> float | None:
        """Return the shared head's accuracy on images of no site; None without images or head."""
        if self.pool.global_test is None or head is None:
            return None
        return self.shared_accuracy(head, self.pool.global_test)

    def shared_accuracy(self, head: NamedArrays, images: LabelledFeatures) -> float:
        """Return the shared head's share of right answers."""
        return share_right(self.predict(head, {}, images.embeddings).shared, images.labels)


def accuracies(found: Predictions, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the accuracy of each classifier that there is, to 6 decimals."""
    return {
        name: round(share_right(probabilities, labels), 6)
        for name in CLASSIFIERS
        if (probabilities := getattr(found, name)) is not None
    }


def mean_over_sites(of_sites: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each classifier's accuracy, to 6 decimals, each site counting alike."""
    return {name: round(float(np.mean([site[name] for site in of_sites])), 6) for name in of_sites[0]}


def tested(sites: Sequence[VirtualSite]) -> list[VirtualSite]:
    """Return the sites that have test images."""
    return [site for site in sites if len(site.test)]


def share_right(probabilities: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Return how many of the images are classified right, 0 to 1."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))
