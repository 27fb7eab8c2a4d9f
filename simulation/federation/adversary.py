"""Who in a federation does not mean well. What they may do is what a member can do: train, send, claim."""

from collections.abc import Sequence
from typing import Protocol

from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


class Adversary(Protocol):
    """Hostile sites that know each other and what all honest sites send in the round."""

    @property
    def hostile(self) -> frozenset[str]:
        """The names of the hostile sites."""

    def trainer(self, trainer: Trainer) -> Trainer:
        """Return what hostile sites train with, given what honest ones do."""

    def claimed_samples(self, site: VirtualSite) -> int:
        """Return how many training images a hostile site says that it has."""

    def forge(
        self, site: str, round_number: int, own: NamedArrays, honest: Sequence[NamedArrays]
    ) -> NamedArrays | None:
        """Return what a hostile site delivers in place of its `own` update; None: its own.

        `own` is what its training would deliver, `honest` what the honest sites do, all as decoded float32.
        """
