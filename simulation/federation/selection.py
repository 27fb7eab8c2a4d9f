"""The round whose heads are a run's result: the best on the sites' validation images, as papers report."""

from collections.abc import Sequence

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.simulation.federation.evaluation import Examiner, Heads, share_right
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


class KeptHeads:
    """The heads that a round left, for sites and for whoever is none. Heads are never changed in place."""

    def __init__(self, heads: Heads, sites: Sequence[VirtualSite]) -> None:
        self._shared = {
            name: heads.shared_head(name) for name in (None, *(site.name for site in sites))
        }  # fmt: skip
        self._private = {site.name: heads.private_head(site.name) for site in sites}

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return what a site's shared head was; None: that of who did not take part."""
        return self._shared[site]

    def private_head(self, site: str) -> NamedArrays:
        """Return what a site's private head was."""
        return self._private[site]


class BestOnValidation:
    """Keeps the heads of the round with the best mean accuracy over the sites' validation images.

    Each of the `training` sites that has validation images counts alike, with all that it has (its
    ensemble), whatever the method. Of equals the first round is kept, as FedMedCLIP's code does. Test images
    have no part in it. Raises InvalidInputError when no site has a validation image.
    """

    def __init__(
        self,
        examiner: Examiner,
        learning: Heads,
        training: Sequence[VirtualSite],
        sites: Sequence[VirtualSite],
    ) -> None:
        self._examiner = examiner
        self._learning = learning
        self._validating = [site for site in training if len(site.validation)]
        self._sites = sites
        if not self._validating:
            raise InvalidInputError(
                "no site has validation images to select the best round by; give them a share with "
                "--fractions, or select the last round"
            )
        self._looked = 0
        self._best = -1.0
        self.round = 0
        self.heads: Heads = learning
        """Those of `round`."""

    def look(self) -> None:
        """Look at the heads that the next round has left."""
        self._looked += 1
        found = sum(map(self._accuracy, self._validating)) / len(self._validating)
        if found > self._best:
            self._best, self.round = found, self._looked
            self.heads = KeptHeads(self._learning, self._sites)

    def _accuracy(self, site: VirtualSite) -> float:
        pool = self._examiner.pool
        found = self._examiner.at_site(self._learning, site.name, pool.embeddings[site.validation])
        return share_right(found.ensemble, pool.labels[site.validation])
