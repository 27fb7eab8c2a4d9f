"""Making the assurance of heads, of a site's own labelled images: numpy only, and the same bytes every time.

images that were not trained on -> answers, distances -> thresholds
training images -> what was seen, and what later images are compared with
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.assurance import Assurance, AssuranceSettings
from fedmedclip.edge_client.heads.classification import answer
from fedmedclip.edge_client.heads.conformal import fit_thresholds, prediction_sets
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.novelty import (
    Floats,
    Labels,
    Seen,
    Spread,
    novelty_threshold,
    seen_at_site,
    seen_by_federation,
)
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.heads.assurance import AssuranceMetadata, Novelty, Reference
from fedmedclip.protocol.heads.head import NamedArrays


@dataclass(frozen=True)
class GroupedImages:
    """Labelled images: `embeddings` float32 (N, D), `labels` int64 (N,), and `groups` int64 (N,), of which
    equal numbers are of one patient, or look alike.
    """

    embeddings: Floats
    labels: Labels
    groups: Labels

    @classmethod
    def of(cls, embeddings: Floats, labels: Labels, groups: Labels | None = None) -> "GroupedImages":
        """Return images; without groups each is its own."""
        return cls(embeddings, labels, np.arange(len(labels), dtype=np.int64) if groups is None else groups)

    def chosen(self, which: npt.NDArray[np.bool_]) -> "GroupedImages":
        """Return the images for which `which` (N,) is true."""
        return GroupedImages(self.embeddings[which], self.labels[which], self.groups[which])


class ReferenceImages:
    """A site's training images, N at least 1; what they say is computed once, for every version of heads.

    What was `seen` is told from these images alone, by default from all.
    """

    def __init__(self, images: GroupedImages, classes: int, seen: GroupedImages | None = None) -> None:
        self._images = images
        self._classes = classes
        self._seen = images if seen is None else seen

    @cached_property
    def seen(self) -> Seen:
        """What the site has seen."""
        return seen_at_site(self._seen.embeddings, self._seen.labels, self._classes)

    @cached_property
    def mean(self) -> Floats:
        """The mean embedding (D,), at unit length each."""
        mean: Floats = unit_rows(self._images.embeddings).mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean

    @cached_property
    def spread(self) -> Spread:
        """Their covariance, whatever their class."""
        centred = unit_rows(self._images.embeddings).astype(np.float64) - self.mean
        return Spread.of(centred.T @ centred / len(centred), float((centred**2).sum()) / len(centred))

    @property
    def number(self) -> int:
        """N."""
        return len(self._images.labels)


def assured(
    heads: Heads,
    bundle: Bundle,
    calibration: GroupedImages,
    reference: ReferenceImages,
    settings: AssuranceSettings,
    apart: GroupedImages | None = None,
) -> Heads:
    """Return heads with the assurance that calibration images give, none where there is no such image.

    What was seen is what the shared head's statistics say, else what the reference images do. In the latter
    case the threshold of distances comes of images `apart` from these, by default the calibration images.
    """
    if len(calibration.labels) == 0:
        return replace(heads, assurance=None)
    probabilities, _ = answer(heads, bundle, calibration.embeddings)
    thresholds = fit_thresholds(
        settings.kind,
        probabilities,
        calibration.labels,
        calibration.groups,
        settings.level,
        settings.class_conditional,
    )
    sizes = prediction_sets(settings.kind, thresholds, probabilities).sum(axis=1)
    classes = probabilities.shape[1]
    shares = np.bincount(probabilities.argmax(axis=1), minlength=classes) / len(probabilities)
    arrays = {
        "mean": reference.mean,
        "vectors": reference.spread.vectors,
        "class_shares": shares.astype(np.float32),
    }
    novelty, more = _novelty(heads, calibration, reference, settings, apart)
    metadata = AssuranceMetadata(
        settings.level,
        settings.kind,
        settings.class_conditional,
        len(calibration.labels),
        len(np.unique(calibration.groups)),
        list(thresholds),
        Reference(
            reference.number,
            reference.spread.vectors.shape[1],
            reference.spread.elsewhere,
            float(sizes.mean()),
        ),
        novelty,
    )
    return replace(heads, assurance=Assurance(metadata, arrays | more))


def _novelty(
    heads: Heads,
    calibration: GroupedImages,
    reference: ReferenceImages,
    settings: AssuranceSettings,
    apart: GroupedImages | None,
) -> tuple[Novelty | None, NamedArrays]:
    seen = seen_by_federation(heads.shared)
    images, of_federation = calibration, seen is not None
    if seen is None:
        seen, images = reference.seen, calibration if apart is None else apart
    found = novelty_threshold(seen.distances(images.embeddings), images.groups, settings.false_alarms)
    if found is None:
        return None, {}
    novelty = Novelty(
        *found,
        "federation" if of_federation else "site",
        len(seen.means),
        seen.root.shape[1],
        seen.elsewhere,
    )
    return novelty, {"means": seen.means, "root": seen.root}
