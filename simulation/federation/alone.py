"""What federating is compared with: every site for itself, all images in one place, or nobody trains."""

from collections.abc import Sequence

import numpy as np

from fedmedclip.edge_client.learning.private_state import head_of
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


class LocalTraining:
    """Every site for itself: a round's shared head is where its next round begins, and nothing travels.

    Without a trainer nobody learns anything, which is zero-shot: everybody has an empty head.
    """

    def __init__(self, trainer: Trainer | None) -> None:
        self._trainer = trainer
        self._heads: dict[str, tuple[NamedArrays, NamedArrays]] = {}

    def play_round(self, number: int, sites: Sequence[VirtualSite]) -> Traffic:
        """Train at these sites."""
        if self._trainer is not None:
            for site in sites:
                self._heads[site.name] = self._trainer.train(site, *self._of(site.name), number)
        return Traffic()

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return a site's own; what was trained is there for no others."""
        if site is None:
            return None if self._trainer else {}
        return self._of(site)[0]

    def private_head(self, site: str) -> NamedArrays:
        """Return a site's private head."""
        return head_of(self._of(site)[1])

    def close(self) -> None:
        """Nothing is held open."""

    def _of(self, site: str) -> tuple[NamedArrays, NamedArrays]:
        if self._trainer is None:
            return {}, {}
        if site not in self._heads:
            self._heads[site] = (self._trainer.initial_shared(), self._trainer.initial_private(site))
        return self._heads[site]


POOLED = "pooled"
"""The name of the one place that holds all images: its training draws by this name, as a site's does."""


class PooledTraining:
    """One pair of heads, trained on the training images of all sites in one place: the upper bound.

    Images would have to travel for it, which nobody counts here. Every site, and whoever is none, has the
    same two heads. `place` has all images.
    """

    def __init__(self, trainer: Trainer, sites: Sequence[VirtualSite]) -> None:
        self._trainer = trainer
        parts = (
            np.sort(np.concatenate([getattr(site, part) for site in sites]))
            for part in ("train", "validation", "test")
        )
        self.place = VirtualSite(POOLED, *parts)
        self._shared = trainer.initial_shared()
        self._private = trainer.initial_private(POOLED)

    def play_round(self, number: int, sites: Sequence[VirtualSite]) -> Traffic:
        """Train on all images, whoever takes part in the round."""
        self._shared, self._private = self._trainer.train(self.place, self._shared, self._private, number)
        return Traffic()

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return the one shared head."""
        return self._shared

    def private_head(self, site: str) -> NamedArrays:
        """Return the one private head."""
        return head_of(self._private)

    def close(self) -> None:
        """Nothing is held open."""
