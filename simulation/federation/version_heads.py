"""Private heads of methods that make them anew from every version: those of the newest one."""

from collections.abc import Mapping, Sequence

from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.evaluation import Learning
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


class VersionHeads:
    """A `Learning` whose private heads are made of its shared ones and the images of `places`, by name.

    Names may share a place: what lies in one place has one head.
    """

    def __init__(self, learning: Learning, trainer: Trainer, places: Mapping[str, VirtualSite]) -> None:
        self._learning = learning
        self._trainer = trainer
        self._places = places
        self._made: dict[str, NamedArrays] = {}

    def play_round(self, number: int, sites: Sequence[VirtualSite]) -> Traffic:
        """See `Learning`."""
        self._made.clear()
        return self._learning.play_round(number, sites)

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """See `Heads`."""
        return self._learning.shared_head(site)

    def private_head(self, site: str) -> NamedArrays:
        """See `Heads`."""
        place = self._places[site]
        if place.name not in self._made:
            shared = self._learning.shared_head(site)
            assert shared is not None
            self._made[place.name] = self._trainer.own_head(place, shared)
        return self._made[place.name]

    def close(self) -> None:
        """See `Learning`."""
        self._learning.close()
