"""What federating is compared with: every site trains for itself, or nobody trains at all."""

from collections.abc import Sequence

from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


class NoTraining:
    """Zero-shot: no heads, no bytes."""

    def play_round(self, number: int, sites: Sequence[VirtualSite]) -> Traffic:
        """Do nothing."""
        return Traffic()

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return an empty head, which everybody has."""
        return {}

    def private_head(self, site: str) -> NamedArrays:
        """Return an empty head."""
        return {}

    def close(self) -> None:
        """Nothing is held open."""


class LocalTraining:
    """Every site for itself: a round's shared head is where its next round begins."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._heads: dict[str, tuple[NamedArrays, NamedArrays]] = {}

    def play_round(self, number: int, sites: Sequence[VirtualSite]) -> Traffic:
        """Train at these sites."""
        for site in sites:
            self._heads[site.name] = self._trainer.train(site, *self._of(site.name), number)
        return Traffic()

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return a site's own; there is none for others."""
        return None if site is None else self._of(site)[0]

    def private_head(self, site: str) -> NamedArrays:
        """Return a site's private head."""
        return self._of(site)[1]

    def close(self) -> None:
        """Nothing is held open."""

    def _of(self, site: str) -> tuple[NamedArrays, NamedArrays]:
        if site not in self._heads:
            self._heads[site] = (self._trainer.initial_shared(), self._trainer.initial_private(site))
        return self._heads[site]
