"""Federations of `one-message`, private or telling everything, as a newcomer meets them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.rules.rule import in_memory
from fedmedclip.aggregator.rules.weighted_mean import mean_of
from fedmedclip.edge_client.heads.heads import predict_probabilities
from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED
from fedmedclip.edge_client.learning.methods.one_message import METHOD, shared_statistics
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.private_message import shared_of_release
from fedmedclip.edge_client.learning.version_head import adapted
from fedmedclip.edge_client.privacy.denoising import denoised, public_statistics
from fedmedclip.edge_client.privacy.public_space import PublicSpace
from fedmedclip.edge_client.privacy.release import Terms, private_sums
from fedmedclip.edge_client.privacy.sums import added
from fedmedclip.edge_client.privacy.units import Unit
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.simulation.federation.evaluation import share_right
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Privacy:
    """(epsilon, delta) for an image or a patient.

    With `secure` the noise is added once for all sites, so much of it that a third of them may drop out.
    """

    epsilon: float
    delta: float
    unit: Unit = "image"
    images_per_patient: int = 1
    secure: bool = False

    def terms(self, sites: int) -> Terms:
        """Return what each of so many sites keeps to."""
        share = 1 / (sites - sites // 3) if self.secure else 1.0
        return Terms(self.epsilon, self.delta, self.unit, self.images_per_patient, noise_share=share)


@dataclass(frozen=True)
class Federation:
    """What is learnt from the training images of the sites of a pool."""

    pool: FeaturePool
    space: PublicSpace

    @cached_property
    def nothing(self) -> NamedArrays:
        """Version 0 of the shared head."""
        return initial_shared_head(METHOD.name, self.pool.embedding_size, 0, self._classes)

    def learn(
        self, sites: Sequence[VirtualSite], privacy: Privacy | None, noise: np.random.Generator
    ) -> NamedArrays:
        """Return the shared head that a newcomer gets of these sites.

        Of exact statistics without privacy; with an epsilon of 0 no site sends anything, and there is what is
        public.
        """
        pool = self.pool
        if privacy is None:
            told = [
                shared_statistics(
                    self.nothing,
                    OwnImages.of(*self._of(site)),
                    pool.class_embeddings,
                    pool.logit_scale,
                    seed=0,
                )
                for site in sites
            ]
            return _pooled(told, [len(site.train) for site in sites])
        if privacy.epsilon == 0:
            return shared_of_release(public_statistics(self.space), self.space)
        terms = privacy.terms(len(sites))
        sums = [private_sums(*self._of(site), self._classes, self.space, terms, noise) for site in sites]
        if privacy.secure:
            return shared_of_release(denoised(added(sums), self.space), self.space)
        released = [shared_of_release(denoised(one, self.space), self.space) for one in sums]
        return _pooled(released, [one.images for one in sums])

    def newcomer(self, site: VirtualSite, labels: int, seed: int) -> OwnImages:
        """Return a newcomer's training images, so many of each class with their labels, drawn by the seed."""
        mixed = np.random.default_rng(seed).permutation(site.train)
        chosen = np.concatenate(
            [mixed[self.pool.labels[mixed] == label][:labels] for label in range(self._classes)]
        )
        embeddings, known, groups = self._of(site)
        return OwnImages.of(embeddings, np.where(np.isin(site.train, chosen), known, NOT_LABELLED), groups)

    def accuracy(self, newcomer: OwnImages, site: VirtualSite, shared: NamedArrays) -> float:
        """Return the share of the site's test images that the newcomer gets right."""
        pool = self.pool
        bundle = pool.class_embeddings, pool.logit_scale
        private = adapted(METHOD.name, shared, newcomer, *bundle, seed=0).private
        found = predict_probabilities(METHOD.name, shared, private, pool.embeddings[site.test], *bundle)
        return share_right(found.ensemble, pool.labels[site.test])

    def zero_shot_accuracy(self, site: VirtualSite) -> float:
        """Return the share of the site's test images that zero-shot gets right."""
        cosines = self.pool.embeddings[site.test] @ self.pool.class_embeddings.T
        return share_right(cosines, self.pool.labels[site.test])

    @property
    def _classes(self) -> int:
        return len(self.pool.class_embeddings)

    def _of(self, site: VirtualSite) -> tuple[Floats, Indices, Indices]:
        pool = self.pool
        return pool.embeddings[site.train], pool.labels[site.train], pool.groups[site.train]


def _pooled(told: Sequence[NamedArrays], images: Sequence[float]) -> NamedArrays:
    """Return the mean of sites' shared arrays, each weighed by its number of images, as the rule makes it."""
    classes, size = told[0]["class_sums"].shape
    updates = [
        in_memory(str(place), float(number), arrays)
        for place, (number, arrays) in enumerate(zip(images, told, strict=True))
    ]
    return mean_of(updates, shared_head_specification(METHOD.name, size, classes))
