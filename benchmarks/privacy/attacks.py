"""What someone who reads one update makes of it. All that is used is public: code, plan, bundle, head.

The attacker has candidates, embeddings of images with their labels, and gives each a score: the higher, the
more it looks like one that the update was made of. Without candidates he forms embeddings of his own.
"""

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import NamedArrays

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# How near to a full step AdamW's may be and still be inverted; the smaller, the more a codec has rounded.
_CLIPS = {"inverted": 1 - 1e-5, "inverted, clipped": 1 - 1e-3, "signs": 0.9}
# Of a scatter's largest eigenvalue; what a codec has rounded hides below it.
_RIDGES = {"leverage": 1e-6, "leverage, ridge 0.001": 1e-3, "leverage, ridge 0.1": 1e-1}
_PRESENT = 1e-3
_ESTIMATES = 16


def first_layer(update: NamedArrays, size: int) -> str | None:
    """Return the name of the weights that embeddings of this size meet first; None where there are none."""
    weights = (name for name, array in update.items() if array.ndim == 2 and array.shape[1] == size)
    return next((name for name in weights if name.endswith(".weight")), None)


def gradients(update: Doubles, before: Doubles, settings: TrainingSettings, steps: int) -> dict[str, Doubles]:
    """Undo AdamW: return estimates of the gradient of weights (H, D) from their change in a round.

    The first step is lr * g / (|g| + epsilon), beside the decay: its inverse is exact. Of several steps it is
    taken for the mean.
    """
    rate = settings.shared_learning_rate
    moved = -(update + rate * settings.weight_decay * steps * before) / rate / steps
    found = {}
    for name, clip in _CLIPS.items():
        kept = np.clip(moved, -clip, clip)
        found[name] = kept / (1 - np.abs(kept))
    return found


def in_row_space(gradient: Doubles, images: int, candidates: Doubles) -> Doubles:
    """Return how much of each candidate (N, D) lies in the rows of a gradient (H, D), which are sums of the
    embeddings of so many images (the update says how many).
    """
    _, _, rows = np.linalg.svd(gradient, full_matrices=False)
    kept = rows[: min(images, candidates.shape[1] // 2)]
    share: Doubles = np.linalg.norm(candidates @ kept.T, axis=1) / np.linalg.norm(candidates, axis=1)
    return share


def leading_rows(gradient: Doubles, images: int) -> Doubles:
    """Return the directions (k, D) that a gradient (H, D) is made of, the largest first."""
    _, _, rows = np.linalg.svd(gradient, full_matrices=False)
    return rows[: min(images, _ESTIMATES)]


def leverages(statistics: NamedArrays, candidates: Doubles, labels: Labels) -> dict[str, Doubles]:
    """Return how little each candidate (N, D) sticks out of the scatter within classes, by ridge.

    Whoever is in a scatter has a leverage below 1 in it; an image that is not may have any.
    """
    means = class_means(statistics)
    offsets = candidates - np.stack([means.get(label, np.zeros(candidates.shape[1])) for label in labels])
    scatter = statistics["scatter"].astype(np.float64)
    values, vectors = np.linalg.eigh((scatter + scatter.T) / 2)
    squared = (offsets @ vectors) ** 2
    largest = max(float(values.max()), 1e-12)
    found = {
        name: -(squared / (np.maximum(values, 0) + ridge * largest)).sum(axis=1)
        for name, ridge in _RIDGES.items()
    }
    return found | {"distance to the class mean": -np.sqrt(squared.sum(axis=1))}


def class_means(statistics: NamedArrays) -> dict[int, Doubles]:
    """Return the mean embedding (D,) of each class that shows in shared statistics."""
    shares = statistics["class_shares"].astype(np.float64)
    sums = statistics["class_sums"].astype(np.float64)
    return {int(label): sums[label] / shares[label] for label in np.flatnonzero(shares > _PRESENT)}


def area_under_curve(scores: Doubles, members: npt.NDArray[np.bool_]) -> float:
    """Return how often a member scores above a non-member: 0.5 is chance, 1 certainty (ties count half)."""
    ranks = np.empty(len(scores))
    order = np.argsort(scores, kind="stable")
    _, inverse, counts = np.unique(scores[order], return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks[order] = (ends - (counts - 1) / 2)[inverse]
    number = int(members.sum())
    return float((ranks[members].sum() - number * (number + 1) / 2) / (number * (len(scores) - number)))


def nearest(estimates: Doubles, candidates: Doubles) -> tuple[npt.NDArray[np.int64], Doubles]:
    """Return for each estimate (k, D), of unknown sign, the nearest candidate and the cosine with it."""
    cosines = np.abs(_unit(estimates) @ _unit(candidates).T)
    chosen = cosines.argmax(axis=1)
    return chosen, cosines[np.arange(len(chosen)), chosen]


def _unit(rows: Doubles) -> Doubles:
    units: Doubles = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return units
