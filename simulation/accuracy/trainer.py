"""Local training at the sites of one run: production code, and the same draws as at real sites."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.accuracy.targets import PublishedTarget
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

ALWAYS_KEPT = -10.0
"""A threshold that no row of a masked layer falls below, so far away that its step's gradient is 0."""


class Trainer:
    """Trains heads of one case with one seed. `targets` are unlabelled embeddings by name."""

    def __init__(
        self, case: Case, seed: int, pool: FeaturePool, targets: Mapping[str, npt.NDArray[np.float32]]
    ) -> None:
        self._case = case
        self._seed = seed
        self._pool = pool
        self._target = None if case.target is None else PublishedTarget(case.target, targets)
        self.target_bytes = 0 if self._target is None else self._target.size

    def initial_shared(self) -> NamedArrays:
        """Return version 0 of the shared head."""
        pool, method = self._pool, self._case.method
        classes = len(pool.class_embeddings)
        return self._masked(initial_shared_head(method, pool.embedding_size, self._seed, classes))

    def initial_private(self, site: VirtualSite) -> NamedArrays:
        """Return a site's first private head; empty for a method without one."""
        pool, method = self._pool, self._case.method
        classes = len(pool.class_embeddings)
        return self._masked(initial_private_head(method, pool.embedding_size, classes, self._seed, site.name))

    def train(
        self, site: VirtualSite, shared: NamedArrays, private: NamedArrays, round_number: int
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return both heads after one local round."""
        pool = self._pool

        def seed_for(purpose: str) -> int:
            return derive_seed(self._seed, site=site.name, round_number=round_number, purpose=purpose)

        trained = train_round(
            self._case.method,
            shared,
            private,
            pool.embeddings[site.train],
            pool.labels[site.train],
            pool.class_embeddings,
            pool.logit_scale,
            self._case.settings,
            round_number=round_number,
            seed=seed_for("training"),
            validation=(pool.embeddings[site.validation], pool.labels[site.validation]),
            target=None if self._target is None else self._target.draw(seed_for("reference")),
        )
        return trained.shared, trained.private

    def _masked(self, head: NamedArrays) -> NamedArrays:
        if self._case.masked:
            return head
        return {
            name: np.full_like(array, ALWAYS_KEPT) if name.endswith(".threshold") else array
            for name, array in head.items()
        }
