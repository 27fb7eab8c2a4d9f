"""The federation's Gaussians: one for each class, of one scatter, from statistics that a weighted mean pools.

    logits(x) = (x - offset) A m_c - m_c A m_c / 2,    A = (scatter's leading directions + shrinkage)^-1

A lossy codec brings the scatter's leading directions, and they are all that is used of it: the others are as
wide as what its trace has left for each of them. That they are few is no loss: with a handful of sites the
small directions are noise (Ledoit and Wolf 2004 shrink them for the same reason).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.heads.head import NamedArrays

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

DIRECTIONS = 8
"""How many leading directions of the scatter are told apart."""
SHRINKAGE = 1.0
"""What is added to the scatter's eigenvalues, in units of their mean."""
_SMALLEST_SHARE = 1e-3
_TOLERANCE = 0.1


@dataclass(frozen=True)
class Gaussians:
    """Class means (C, D), which of them any site has (C,), and the root of the metric, (D, D), float64.

    Differences of embeddings times `root` have about D times unit variance in the directions that count.
    """

    means: Doubles
    present: npt.NDArray[np.bool_]
    root: Doubles

    @property
    def metric(self) -> Doubles:
        """A (D, D)."""
        metric: Doubles = self.root @ self.root.T
        return metric


def statistics_arrived(shared: Mapping[str, Floats]) -> bool:
    """Whether statistics are there: shares that make up a whole, and means that unit vectors can have."""
    shares, spread = shared["class_shares"].astype(np.float64), float(shared["spread"][0])
    present = shares > _SMALLEST_SHARE
    lengths = np.linalg.norm(shared["class_sums"][present].astype(np.float64), axis=1) / shares[present]
    return bool(
        abs(shares.sum() - 1) < _TOLERANCE
        and (lengths < 1 + _TOLERANCE).all()
        and 0 < spread < 1 + _TOLERANCE
    )


def gaussians_of(shared: NamedArrays) -> Gaussians | None:
    """Return the Gaussians of a shared head; None where no statistics have arrived, or of one class only."""
    if not statistics_arrived(shared):
        return None
    shares = shared["class_shares"].astype(np.float64)
    present = shares > _SMALLEST_SHARE
    if present.sum() < 2:
        return None
    means = np.zeros(shared["class_sums"].shape)
    means[present] = shared["class_sums"][present].astype(np.float64) / shares[present, None]
    scatter, spread = shared["scatter"].astype(np.float64), float(shared["spread"][0])
    size = len(scatter)
    values, vectors = np.linalg.eigh((scatter + scatter.T) / 2)
    kept = values[::-1][:DIRECTIONS].clip(min=0)
    number = len(kept)
    elsewhere = max(spread - float(kept.sum()), 0) / max(size - number, 1)
    lengths = np.full(size, elsewhere)
    lengths[:number] = np.maximum(kept, elsewhere)
    unit = spread / size
    root: Doubles = vectors[:, ::-1] / np.sqrt(lengths + SHRINKAGE * unit)
    return Gaussians(means, present, root)


def discriminant(gaussians: Gaussians) -> tuple[Doubles, Doubles]:
    """Return the discriminant as weights (C, D) and biases (C,): logits are x @ weights.T + biases.

    A class that no site has gets the mean of the others', so that what else is known of it decides.
    """
    weights = gaussians.means @ gaussians.metric
    biases = -(weights * gaussians.means).sum(axis=1) / 2
    weights[~gaussians.present] = weights[gaussians.present].mean(axis=0)
    biases[~gaussians.present] = biases[gaussians.present].mean()
    return weights, biases
