"""Local training at the sites of one run: production code, and the same draws as at real sites."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED
from fedmedclip.edge_client.learning.floors import train_within
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.private_state import initial_private_state, private_state_specification
from fedmedclip.edge_client.learning.version_head import adapted
from fedmedclip.edge_client.site.roles import Contribution
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import (
    initial_shared_head,
    shared_head_specification,
)
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.private_sites import private_release, told_images
from fedmedclip.simulation.federation.targets import PublishedTarget
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

if TYPE_CHECKING:
    from fedmedclip.edge_client.learning.training import TrainedHeads

ALWAYS_KEPT = -10.0
"""A threshold that no row of a masked layer falls below, so far away that its step's gradient is 0."""


@dataclass(frozen=True)
class Trainer:
    """Trains heads as the plan says. PyTorch is imported by the first round.

    `target` is what an adapting method adapts to; `masked` False keeps every row of every masked layer.
    """

    plan: FederationPlan
    pool: FeaturePool
    target: PublishedTarget | None = None
    masked: bool = True

    @property
    def shared_specification(self) -> HeadSpecification:
        """The shared head's specification."""
        return shared_head_specification(self.plan.method, self.pool.embedding_size, self._classes)

    @property
    def private_specification(self) -> HeadSpecification:
        """The specification of what a site keeps: the private head, and Adam's memory if asked for."""
        return private_state_specification(
            self.plan.method, self.pool.embedding_size, self._classes, self.plan.settings
        )

    def initial_shared(self) -> NamedArrays:
        """Return version 0 of the shared head."""
        head = initial_shared_head(self.plan.method, self.pool.embedding_size, self.plan.seed, self._classes)
        return self._masked(head)

    def initial_private(self, site: str) -> NamedArrays:
        """Return what a site keeps before its first round; empty for a method without private head."""
        plan, size = self.plan, self.pool.embedding_size
        first = initial_private_state(plan.method, size, self._classes, plan.settings, plan.seed, site)
        return self._masked(first)

    def train(
        self, site: VirtualSite, shared: NamedArrays, private: NamedArrays, round_number: int
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return both heads after one local round."""
        from fedmedclip.edge_client.learning.training import train_round

        pool = self.pool

        def seed_for(purpose: str) -> int:
            return derive_seed(self.plan.seed, site=site.name, round_number=round_number, purpose=purpose)

        target = None if self.target is None else self.target.draw(seed_for("reference"))
        settings, release = self.plan.settings, None
        if self.plan.privacy is not None:
            release, _ = private_release(self.plan, pool, site, shared, round_number, target, self._reference)
            settings = settings.of_private_head()

        def train(
            embeddings: npt.NDArray[np.float32],
            labels: npt.NDArray[np.int64],
            groups: npt.NDArray[np.int64] | None,
        ) -> "TrainedHeads":
            return train_round(
                self.plan.method,
                shared,
                private,
                embeddings,
                labels,
                pool.class_embeddings,
                pool.logit_scale,
                settings,
                round_number=round_number,
                seed=seed_for("training"),
                validation=(pool.embeddings[site.validation], pool.labels[site.validation]),
                target=target,
                groups=groups,
            )

        embeddings, labels = pool.embeddings[site.train], pool.labels[site.train]
        groups = pool.groups[site.train]
        if release is not None:
            return release, train(embeddings, labels, groups).private
        trained = train_within(self.plan.floors, self.plan.method, embeddings, labels, train, groups)
        return trained.shared, trained.private

    def own_head(
        self,
        site: VirtualSite,
        shared: NamedArrays,
        unlabelled: npt.NDArray[np.int64] | None = None,
    ) -> NamedArrays:
        """Return the private head that a method makes of a version and a site's images.

        `unlabelled` are images of the pool (M,) that the site has beside its labelled ones. Raises
        InvalidInputError for a method that trains its private heads.
        """
        plan, pool = self.plan, self.pool
        labels = pool.labels[site.train]
        shown = plan.floors.shared_images(plan.method, labels)
        held_back = plan.privacy is not None or plan.floors.reason_to_keep(plan.method, labels)
        more = np.empty(0, dtype=np.int64) if unlabelled is None else unlabelled
        indices = np.concatenate([site.train, more])
        nothing = np.full(len(more), NOT_LABELLED)
        images = OwnImages.of(
            pool.embeddings[indices],
            np.concatenate([labels, nothing]),
            pool.groups[indices],
            np.concatenate([shown & (not held_back), nothing == 0]),
        )
        return self._head_of(site.name, shared, images)

    def head_without_labels(
        self, place: str, shared: NamedArrays, embeddings: npt.NDArray[np.float32]
    ) -> NamedArrays:
        """Return the private head that a method makes of a version and images (M, D) without labels.

        They need not be of the pool. Raises InvalidInputError for a method that trains its private heads.
        """
        return self._head_of(place, shared, OwnImages.of(embeddings))

    def _head_of(self, place: str, shared: NamedArrays, images: OwnImages) -> NamedArrays:
        plan, pool = self.plan, self.pool
        seed = derive_seed(plan.seed, site=place, purpose="version head")
        return adapted(plan.method, shared, images, pool.class_embeddings, pool.logit_scale, seed).private

    def contribution(self, site: VirtualSite) -> Contribution:
        """Return how many images a site's update stands for, and whether a floor keeps it there."""
        plan, labels = self.plan, self.pool.labels[site.train]
        if plan.privacy is not None:
            return Contribution(told_images(plan, self.pool, site, self.initial_shared(), self._reference))
        samples = int(plan.floors.shared_images(plan.method, labels).sum())
        return Contribution(samples, plan.floors.reason_to_keep(plan.method, labels))

    @property
    def _reference(self) -> npt.NDArray[np.float32] | None:
        return None if self.target is None else self.target.draw(0)

    @property
    def _classes(self) -> int:
        return len(self.pool.class_embeddings)

    def _masked(self, head: NamedArrays) -> NamedArrays:
        if self.masked:
            return head
        return {
            name: np.full_like(array, ALWAYS_KEPT) if name.endswith(".threshold") else array
            for name, array in head.items()
        }
