"""What federating is compared with: every site trains for itself, or nobody trains at all."""

from collections.abc import Sequence

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
