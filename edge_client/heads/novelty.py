"""How far an image lies from all that was seen: the Mahalanobis distance to the nearest class.

Classes share one scatter, whose leading directions are told apart; the others are as wide as what its trace
has left for each. A little of the mean variance is added to all (Lee et al. 2018, "A simple unified framework
for detecting out-of-distribution samples and adversarial attacks"; the shrinkage as in Ledoit and Wolf 2004).
Where the shared head carries statistics, what was seen is what the whole federation has; otherwise it is the
site's own training images.

Relative Mahalanobis (Ren et al. 2021) and the distance to the nearest training images were tried beside it,
and the shrinkage chosen, on the phantoms and what is none of them (`benchmarks/assurance`): there it was
best. The threshold comes from the site's own images alone, and never from outsiders.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.conformal import group_quantile
from fedmedclip.edge_client.heads.gaussians import statistics_arrived
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.whitening import statistics

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

DIRECTIONS = 64
"""How many leading directions of a scatter are told apart at most."""
SHRINKAGE = 0.03
"""What is added to the scatter's eigenvalues, in units of their mean."""
LARGEST_FALSE_ALARMS = 0.1
"""Images too few to set a threshold that fewer of their like exceed than this set none."""
_SMALLEST_SHARE = 1e-3
_STATISTICS = frozenset({"class_sums", "class_shares", "scatter", "spread"})


@dataclass(frozen=True)
class Spread:
    """A covariance in few numbers: vectors (D, k) float32, their lengths the square roots of its leading
    eigenvalues, and `elsewhere`, the variance in each other direction.
    """

    vectors: Floats
    elsewhere: float

    @classmethod
    def of(cls, covariance: Doubles, trace: float) -> "Spread":
        """Return that of a covariance float64 (D, D); what it lacks of its trace is put in evenly."""
        size = len(covariance)
        kept = min(DIRECTIONS, size - 1)
        values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
        leading = values[::-1][:kept].clip(min=0)
        elsewhere = max(trace - float(leading.sum()), 0) / (size - kept)
        # A direction's sign is arbitrary, and may differ from one processor to the next.
        directions = vectors[:, ::-1][:, :kept]
        signs = np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(kept)])
        return cls((directions * signs * np.sqrt(leading)).astype(np.float32), elsewhere)


@dataclass(frozen=True)
class Seen:
    """What was seen: class means (M, D) and what takes a difference of embeddings to its length.

    The squared length of d is |d|^2 / elsewhere - |d @ root|^2, `root` float32 (D, k).
    """

    means: Floats
    root: Floats
    elsewhere: float

    @classmethod
    def of(cls, means: Floats, scatter: Spread, shrinkage: float = SHRINKAGE) -> "Seen":
        """Return that of class means (M, D) and the scatter within classes, shrunk."""
        size = len(scatter.vectors)
        lengths = (scatter.vectors.astype(np.float64) ** 2).sum(axis=0)
        unit = (float(lengths.sum()) + (size - len(lengths)) * scatter.elsewhere) / size
        added = max(shrinkage * unit, 1e-9)
        elsewhere = scatter.elsewhere + added
        widths = np.maximum(lengths, scatter.elsewhere) + added
        root = scatter.vectors * np.sqrt((1 / elsewhere - 1 / widths) / np.maximum(lengths, 1e-30))
        return cls(means.astype(np.float32), root.astype(np.float32), elsewhere)

    def distances(self, embeddings: Floats) -> Doubles:
        """Return the distance of each embedding, float32 (N, D), to the nearest class, float64 (N,)."""
        rows, means = unit_rows(embeddings).astype(np.float64), self.means.astype(np.float64)
        root = self.root.astype(np.float64)
        apart = _squared(rows, means) / self.elsewhere - _squared(rows @ root, means @ root)
        nearest: Doubles = np.sqrt(apart.min(axis=1).clip(min=0))
        return nearest


def seen_by_federation(shared: Mapping[str, Floats]) -> Seen | None:
    """Return what the statistics in a shared head say; None where it has none, or none have arrived."""
    if not shared.keys() >= _STATISTICS or not statistics_arrived(shared):
        return None
    return _seen(shared) if _present(shared).any() else None


def seen_at_site(embeddings: Floats, labels: Labels, classes: int) -> Seen:
    """Return what a site's own images say: embeddings float32 (N, D), labels int64 (N,), N at least 1."""
    return _seen(statistics(unit_rows(embeddings), labels, classes))


def novelty_threshold(distances: Doubles, groups: Labels, false_alarms: float) -> tuple[float, float] | None:
    """Return the distance beyond which an image is unlike what was seen, and the share of false alarms.

    `distances` float64 (N,) and `groups` int64 (N,) are of images that were not in the statistics. Of an
    image of a new group that comes about as they did, that share is the largest chance to be called unlike:
    `false_alarms`, or 1 / (number of groups + 1) where so few groups allow no less. None where that is more
    than `LARGEST_FALSE_ALARMS`.
    """
    share = max(false_alarms, 1 / (len(np.unique(groups)) + 1))
    limit = group_quantile(distances, groups, 1 - share)
    if share > LARGEST_FALSE_ALARMS or limit is None or limit <= 0:
        return None
    return limit, share


def _seen(shared: Mapping[str, Floats]) -> Seen:
    present = _present(shared)
    means = shared["class_sums"][present] / shared["class_shares"][present, None]
    return Seen.of(means, Spread.of(shared["scatter"].astype(np.float64), float(shared["spread"][0])))


def _present(shared: Mapping[str, Floats]) -> npt.NDArray[np.bool_]:
    """Return which classes are there (C,): of very many, each has a small share."""
    shares = shared["class_shares"]
    present: npt.NDArray[np.bool_] = shares > min(_SMALLEST_SHARE, 0.1 / len(shares))
    return present


def _squared(rows: Doubles, others: Doubles) -> Doubles:
    """Return the squared distances (N, M) of rows (N, k) to others (M, k)."""
    apart: Doubles = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * (rows @ others.T)
    return apart
