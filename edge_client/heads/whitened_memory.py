"""Whitened memory, this project's own method: closed form, numpy only, no gradient and nothing to tune.

Shared: what the embeddings of all sites have in common, as sufficient statistics that a weighted mean pools
exactly: how they vary *within* a class (scatter D x D), and where each class lies (sums and shares). The
scatter is dominated by a few directions in which anatomy and scanner vary whatever the finding; whitening
takes them down and brings out the many small ones that tell findings apart. No site has images enough to
estimate D x D numbers well alone.

Private: kernel ridge regression on the site's own whitened embeddings, a memory as in Tip-Adapter (Zhang et
al. 2022). What a memory says fades to nothing far from its images, and the Gaussian discriminant of the
shared statistics is faded out there as well: an image unlike anything that the sites have seen is left to
zero-shot.

    embedding -> whiten(shared) -> Gaussian discriminant, faded + zero-shot logits -> shared probabilities
                                -> kernel to the site's own images -> private probabilities
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import EnsembleRule, softmax
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CAPACITY = 1024
"""Images that a memory holds at most; each takes D + C values."""
SHRINKAGE = 0.3
"""Added to the scatter's eigenvalues, in units of their mean."""
DISCRIMINANT_SHARE = 0.1
"""Weight of the Gaussian discriminant beside the zero-shot logits: its variables are taken for independent,
so that it is too sure of itself."""
NEAR, FAR = 1.5, 2.5
"""Squared distances to the nearest class, in units of what the sites' own images have on average, between
which the discriminant fades out. Images of other scanners have about 3."""
WIDTH = 0.6
"""The kernel is exp(-WIDTH * squared distance / mean squared length of the class means and images)."""
RIDGE = 0.02
ENSEMBLE = EnsembleRule("calibrated", 0.75)
"""The memory's temperature makes it honest about what it does not know, and the shared head is too sure of
itself: weights by their entropies give the latter too much."""
_SMALLEST_SHARE = 1e-3
_TOLERANCE = 0.1
_TEMPERATURES = np.geomspace(1, 64, 25)


def memory_specification(size: int, classes: int) -> HeadSpecification:
    """Return the private arrays: the whitening, the whitened images remembered, and what each says.

    The transform is scaled so that the kernel is exp(-squared distance). Unused places say 0 to every class.
    """
    return HeadSpecification(
        (
            TensorSpecification("centre", (size,)),
            TensorSpecification("transform", (size, size)),
            TensorSpecification("keys", (CAPACITY, size)),
            TensorSpecification("evidence", (CAPACITY, classes)),
        )
    )


@dataclass(frozen=True)
class Whitening:
    """What the shared statistics say, in float64: z = (e - centre) @ transform has about unit mean length.

    `prototypes` (C, D) are the whitened class means, `present` (C,) whether any site has the class,
    `expected` the mean squared distance of an image to its own class mean.
    """

    centre: npt.NDArray[np.float64]
    transform: npt.NDArray[np.float64]
    prototypes: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]
    expected: float

    def apply(self, embeddings: Floats) -> Floats:
        """Whiten rows (N, D)."""
        whitened: Floats = (embeddings - self.centre.astype(np.float32)) @ self.transform.astype(np.float32)
        return whitened


def statistics(embeddings: Floats, labels: Labels, classes: int) -> NamedArrays:
    """Return a site's shared arrays: sums and shares of each class and the scatter within, per image."""
    doubles, images = embeddings.astype(np.float64), len(labels)
    chosen = _one_hot(labels, classes)
    counts = chosen.sum(axis=0)
    sums = chosen.T @ doubles
    offsets = doubles - (sums / np.maximum(counts, 1)[:, None])[labels]
    return {
        "class_sums": (sums / images).astype(np.float32),
        "class_shares": (counts / images).astype(np.float32),
        "scatter": (offsets.T @ offsets / images).astype(np.float32),
        "spread": np.array([(offsets**2).sum() / images], np.float32),
    }


def arrived(shared: Mapping[str, Floats]) -> bool:
    """Whether the statistics have come whole: a lossy codec brings them over several rounds.

    The classes' shares must make up the whole, the mean of unit vectors can be no longer than 1, and most of
    the spread must be in the scatter.
    """
    shares, spread = shared["class_shares"].astype(np.float64), float(shared["spread"][0])
    present = shares > _SMALLEST_SHARE
    lengths = np.linalg.norm(shared["class_sums"][present], axis=1) / shares[present]
    return bool(
        abs(shares.sum() - 1) < _TOLERANCE
        and (lengths < 1 + _TOLERANCE).all()
        and abs(np.trace(shared["scatter"]) - spread) < 2 * _TOLERANCE * spread
    )


def whitening(shared: Mapping[str, Floats]) -> Whitening:
    """Return what the shared arrays say; they hold at least one class.

    A scatter that went through a lossy codec is made a covariance again: symmetric, no negative eigenvalue,
    and what its trace lacks of the spread (low-rank updates bring the large directions first) put in evenly.
    """
    shares = shared["class_shares"].astype(np.float64)
    present = shares > _SMALLEST_SHARE
    means = shared["class_sums"].astype(np.float64) / np.maximum(shares, _SMALLEST_SHARE)[:, None]
    centre = means[present].mean(axis=0)
    scatter = shared["scatter"].astype(np.float64)
    size = len(scatter)
    unit = max(float(shared["spread"][0]), 1e-3) / size
    values, vectors = np.linalg.eigh((scatter + scatter.T) / (2 * unit))
    values = np.maximum(values, 0)
    values += max(1 - float(values.mean()), 0)
    transform = (vectors / np.sqrt(values + SHRINKAGE)) @ vectors.T / np.sqrt(unit * size)
    expected = max(float((values / (values + SHRINKAGE)).mean()), 1e-3)
    return Whitening(centre, transform, (means - centre) @ transform, present, expected)


def shared_logits(
    shared: Mapping[str, Floats], embeddings: Floats, class_embeddings: Floats, logit_scale: float
) -> tuple[Floats, Floats]:
    """Return the embeddings (N, D) as they are, for the memory, and the logits (N, C) of the shared head."""
    zero_shot = logit_scale * (embeddings @ class_embeddings.T)
    if not arrived(shared):
        return embeddings, zero_shot
    space = whitening(shared)
    whitened = space.apply(embeddings)
    prototypes = space.prototypes.astype(np.float32)
    present = space.present.astype(np.float32)
    # Squared distances, without the part that all classes share.
    nearness = whitened @ prototypes.T - (prototypes**2).sum(axis=1) / 2
    among = nearness - np.float32(1e9) * (1 - present)
    squared = (whitened**2).sum(axis=1, keepdims=True) - 2 * among.max(axis=1, keepdims=True)
    trust = np.minimum(np.maximum((FAR - squared / space.expected) / (FAR - NEAR), 0), 1)
    learned = DISCRIMINANT_SHARE * class_embeddings.shape[1] * trust * (nearness * present)
    return embeddings, (zero_shot + learned.astype(np.float32)).astype(np.float32)


def private_logits(private: Mapping[str, Floats], shared: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """Return the memory's logits (N, C) of embeddings (N, D)."""
    used = np.abs(private["evidence"]).sum(axis=1) > 0
    whitened = ((embeddings - private["centre"]) @ private["transform"]).astype(np.float32)
    near = _kernel(whitened, private["keys"][used])
    logits: Floats = near @ private["evidence"][used]
    return logits


def fit(
    shared: NamedArrays, embeddings: Floats, labels: Labels, classes: int, seed: int
) -> tuple[NamedArrays, NamedArrays, float]:
    """Return the site's statistics, its memory, and the memory's leave-one-out loss.

    The memory's space is whitened by the mean of the federation's statistics and the site's own, until the
    former have arrived by the latter alone. Kernel ridge regression towards one-hot labels; the temperature
    makes its leave-one-out predictions (a by-product of the inverse; Rasmussen and Williams 2006, equation
    5.12) most likely.
    """
    own = statistics(embeddings, labels, classes)
    both = own
    if arrived(shared):
        both = {name: ((own[name] + shared[name]) / 2).astype(np.float32) for name in own}
    space = whitening(both)
    between = float((space.prototypes[space.present] ** 2).sum(axis=1).mean())
    transform = (space.transform * np.sqrt(WIDTH / (space.expected + between))).astype(np.float32)
    centre = space.centre.astype(np.float32)
    kept = _remembered(labels, classes, seed)
    keys: Floats = (embeddings[kept] - centre) @ transform
    targets = _one_hot(labels[kept], classes) - 1 / classes
    inverse = np.linalg.inv(_kernel(keys, keys).astype(np.float64) + RIDGE * np.eye(len(kept)))
    evidence = inverse @ targets
    left_out = targets - evidence / np.diag(inverse)[:, None]
    temperature, loss = _most_likely_temperature(left_out, labels[kept])
    private = {
        "centre": centre,
        "transform": transform,
        "keys": np.zeros((CAPACITY, embeddings.shape[1]), np.float32),
        "evidence": np.zeros((CAPACITY, classes), np.float32),
    }
    private["keys"][: len(kept)] = keys
    private["evidence"][: len(kept)] = temperature * evidence
    return own, private, loss


def _most_likely_temperature(scores: npt.NDArray[np.float64], labels: Labels) -> tuple[float, float]:
    """Return the factor of scores (N, C) that makes the labels most likely, and the loss with it."""
    rows = np.arange(len(labels))
    losses = [
        float(-np.log(softmax(temperature * scores)[rows, labels] + 1e-12).mean())
        for temperature in _TEMPERATURES
    ]
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), losses[best]


def _one_hot(labels: Labels, classes: int) -> npt.NDArray[np.float64]:
    chosen: npt.NDArray[np.float64] = (labels[:, None] == np.arange(classes)).astype(np.float64)
    return chosen


def _remembered(labels: Labels, classes: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the images to remember, sorted: all, or when there are too many equally many of each class."""
    if len(labels) <= CAPACITY:
        return np.arange(len(labels))
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))
    place = np.empty(len(labels), dtype=np.int64)
    for label in range(classes):
        members = order[labels[order] == label]
        place[members] = np.arange(len(members))
    return np.sort(order[np.argsort(place[order], kind="stable")][:CAPACITY])


def _kernel(left: Floats, right: Floats) -> Floats:
    squared = (left**2).sum(axis=1, keepdims=True) + (right**2).sum(axis=1) - 2 * (left @ right.T)
    near: Floats = np.exp(-np.maximum(squared, 0))
    return near
