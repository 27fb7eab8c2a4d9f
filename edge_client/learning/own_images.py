"""A site's own images as a method sees them that needs more of them than embeddings and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED


@dataclass(frozen=True)
class OwnImages:
    """N images of a site.

    `embeddings` float32 (N, D), `labels` int64 (N,) with `NOT_LABELLED` for what nobody has labelled,
    `groups` int64 (N,) equal for images of one patient or look-alikes, `shown` bool (N,) which of them the
    site's shared arrays are made of.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    shown: npt.NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        embeddings: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64] | None = None,
        groups: npt.NDArray[np.int64] | None = None,
        shown: npt.NDArray[np.bool_] | None = None,
    ) -> OwnImages:
        """Return images; without labels nobody has labelled them, without groups each is its own."""
        number = len(embeddings)
        return cls(
            embeddings,
            np.full(number, NOT_LABELLED, dtype=np.int64) if labels is None else labels,
            np.arange(number, dtype=np.int64) if groups is None else groups,
            np.zeros(number, dtype=np.bool_) if shown is None else shown,
        )

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which images have a label (N,)."""
        labelled: npt.NDArray[np.bool_] = self.labels != NOT_LABELLED
        return labelled

    def chosen(self, which: npt.NDArray[np.bool_]) -> OwnImages:
        """Return the images for which `which` (N,) is true."""
        return OwnImages(self.embeddings[which], self.labels[which], self.groups[which], self.shown[which])
