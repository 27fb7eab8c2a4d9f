"""Federations of private sites, or of sites that tell everything, as a newcomer meets them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from benchmarks.privacy.newcomer import Doubles, Floats, Newcomer, gaussians_of, pooled
from fedmedclip.edge_client.heads.whitening import statistics
from fedmedclip.edge_client.privacy.denoising import denoised, public_statistics
from fedmedclip.edge_client.privacy.mixing import mixing_factors
from fedmedclip.edge_client.privacy.public_space import PublicSpace
from fedmedclip.edge_client.privacy.release import Terms, private_sums
from fedmedclip.edge_client.privacy.sums import added
from fedmedclip.edge_client.privacy.units import Unit
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

Indices = npt.NDArray[np.int64]


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
    def zero_shot(self) -> Doubles:
        """Class embeddings (C, D) times the logit scale."""
        captions: Doubles = self.pool.logit_scale * self.pool.class_embeddings.astype(np.float64)
        return captions

    def learn(
        self, sites: Sequence[VirtualSite], privacy: Privacy | None, noise: np.random.Generator
    ) -> dict[str, Floats]:
        """Return the shared statistics that a newcomer gets of these sites.

        Exact ones without privacy; with an epsilon of 0 no site sends anything, and there is what is public.
        """
        if privacy is None:
            told = [statistics(*self._of(site)[:2], self._classes) for site in sites]
            return pooled(told, [len(site.train) for site in sites])
        if privacy.epsilon == 0:
            return public_statistics(self.space)
        terms = privacy.terms(len(sites))
        sums = [private_sums(*self._of(site), self._classes, self.space, terms, noise) for site in sites]
        if privacy.secure:
            return denoised(added(sums), self.space)
        return pooled([denoised(one, self.space) for one in sums], [one.images for one in sums])

    def newcomer(self, site: VirtualSite, labels: int, seed: int) -> Newcomer:
        """Return a newcomer with so many labels of each class, drawn from its training images."""
        mixed = np.random.default_rng(seed).permutation(site.train)
        chosen = np.concatenate(
            [mixed[self.pool.labels[mixed] == label][:labels] for label in range(self._classes)]
        )
        others = np.setdiff1d(site.train, chosen)
        embeddings = self.pool.embeddings
        return Newcomer(embeddings[others], embeddings[chosen], self.pool.labels[chosen])

    def accuracy(self, newcomer: Newcomer, site: VirtualSite, shared: dict[str, Floats]) -> float:
        """Return the share of the site's test images that the newcomer gets right."""
        mixing = mixing_factors(shared, self.space)
        test = self.pool.embeddings[site.test]
        answers = newcomer.answers(gaussians_of(shared), mixing, self.zero_shot, test)
        return float((answers == self.pool.labels[site.test]).mean())

    def zero_shot_accuracy(self, site: VirtualSite) -> float:
        """Return the share of the site's test images that zero-shot gets right."""
        answers = (self.pool.embeddings[site.test] @ self.zero_shot.T).argmax(axis=1)
        return float((answers == self.pool.labels[site.test]).mean())

    @property
    def _classes(self) -> int:
        return len(self.pool.class_embeddings)

    def _of(self, site: VirtualSite) -> tuple[npt.NDArray[np.float32], Indices, Indices]:
        pool = self.pool
        return pool.embeddings[site.train], pool.labels[site.train], pool.groups[site.train]
