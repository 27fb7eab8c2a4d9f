"""What a site's images say about the discriminant of statistics that they are not in.

How the discriminant will serve a hospital outside of the federation is best seen from how the others' serves
this one: a site takes its own part out of the pooled statistics, and tests what is left on its own images.
Where nothing is left (a site alone, statistics that have not arrived, classes that nobody else has) it tests
each fold of its images on the statistics of its other folds. No image is tested on statistics that it is in:
with fewer images than dimensions it would always seem to be told right.
"""

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.discriminant import (
    DISCRIMINANT_FACTORS,
    DOUBT,
    PLACES,
    ZERO_SHOT_FACTORS,
    Doubles,
    Evidence,
    discriminant_of,
)
from fedmedclip.edge_client.heads.whitening import (
    SHRINKAGES,
    Axes,
    Floats,
    Labels,
    arrived,
    axes_of,
    statistics,
)
from fedmedclip.protocol.heads.head import NamedArrays, TensorSpecification

FOLDS = 3
CHOSEN_NUMBERS = 3
"""What evidence chooses: two factors and a shrinkage."""
_ROWS, _SLOTS = 4, 64
_MARK = np.float32(0.25)
_LEAST_OF_OTHERS = 0.02
_LEAST_LEFT = 0.05
_ALL_THERE = 0.01
_STATISTICS = ("class_shares", "spread", "class_sums", "scatter")


def marks_array() -> TensorSpecification:
    """Return the array from which a site reads how much the pooled statistics hold of its own.

    A count-min sketch (Cormode and Muthukrishnan 2005) of the sites' weights: each marks one of 64 slots in
    each of 4 rows. Marks are pooled exactly as the statistics are, whatever weights them, cuts them or brings
    them late.
    """
    return TensorSpecification("marks", (_ROWS * _SLOTS,))


def marks_of(embeddings: Floats, labels: Labels) -> Floats:
    """Return a site's marks, drawn from a hash of its images: the same in each round."""
    hashed = sha256(np.ascontiguousarray(embeddings).tobytes() + np.ascontiguousarray(labels).tobytes())
    slots = np.frombuffer(hashed.digest()[:_ROWS], np.uint8) % _SLOTS
    marks = np.zeros((_ROWS, _SLOTS), np.float32)
    marks[np.arange(_ROWS), slots] = _MARK
    return marks.ravel()


def others(
    shared: Mapping[str, Floats],
    own: Mapping[str, Floats],
    arrived: Callable[[Mapping[str, Floats]], bool] = arrived,
) -> NamedArrays | None:
    """Return the pooled statistics without a site's `own`; None where they have not arrived or leave nothing.

    A class of which next to nothing is left has only the codec's errors in it, and counts as missing.
    `arrived` says what counts as there.
    """
    if not arrived(shared):
        return None
    had = own["class_shares"] > 0
    bound = float((shared["class_shares"][had] / own["class_shares"][had]).min())
    weight = np.clip(float(shared["marks"][own["marks"] > 0].min() / _MARK), 0, max(bound, 0))
    if weight > 1 - _LEAST_OF_OTHERS:
        return None
    directions = _arrived_directions(shared)
    whole, part = (
        {name: arrays[name] for name in _STATISTICS}
        | {"scatter": _even_elsewhere(arrays["scatter"], float(arrays["spread"][0]), directions)}
        for arrays in (shared, own)
    )
    left = {
        name: ((whole[name] - weight * part[name]) / (1 - weight)).astype(np.float32) for name in _STATISTICS
    }
    gone = left["class_shares"] * (1 - weight) < _LEAST_LEFT * shared["class_shares"]
    left["class_shares"][gone] = 0
    left["class_sums"][gone] = 0
    return left if arrived(left) else None


def _arrived_directions(shared: Mapping[str, Floats]) -> Doubles | None:
    """Return the directions (D, K) in which the pooled scatter has arrived; None where all of it has."""
    scatter, spread = shared["scatter"].astype(np.float64), float(shared["spread"][0])
    lacking = spread - float(np.trace(scatter))
    if lacking < _ALL_THERE * spread:
        return None
    values, vectors = np.linalg.eigh((scatter + scatter.T) / 2)
    directions: Doubles = vectors[:, values > lacking / len(values)]
    return directions


def _even_elsewhere(scatter: Floats, spread: float, directions: Doubles | None) -> Doubles:
    """Return a scatter of this trace as it is in these directions, and even in all others.

    That is how a codec brings the pooled one. Taken out as it is, a site's part would leave less than nothing
    in directions that have not arrived yet.
    """
    doubles = scatter.astype(np.float64)
    if directions is None:
        return doubles
    size, number = directions.shape
    within = directions.T @ doubles @ directions
    even = max(spread - float(np.trace(within)), 0) / max(size - number, 1)
    elsewhere: Doubles = even * np.eye(size) + directions @ (within - even * np.eye(number)) @ directions.T
    return elsewhere


def evidence_of(known: Axes | None, embeddings: Floats, labels: Labels, zero_shot: Floats) -> Evidence | None:
    """Return what a site's images say; None where it has too few classes to say anything.

    `known` are the axes of the `others`, `zero_shot` (N, C) logits. Each number that would be chosen takes
    1/N off the gain, as in Akaike's criterion (1974), so that few images do not move the head away from
    zero-shot by chance.
    """
    gains: list[Doubles] = []
    distances: list[Doubles] = []
    for part, tested in _tests(known, embeddings, labels, zero_shot.shape[1]):
        found = _measured(part, embeddings[tested], labels[tested], zero_shot[tested])
        gains.append(found[0])
        distances.append(found[1])
    if not gains:
        return None
    images = sum(map(len, gains))
    mean: Doubles = np.concatenate(gains).mean(axis=0)
    unchosen = mean[:, 0, 0].copy()
    mean -= CHOSEN_NUMBERS / images
    mean[:, 0, 0] = unchosen
    return Evidence(mean, np.quantile(np.concatenate(distances), (0.5, 0.95), axis=0).T)


def _tests(
    known: Axes | None, embeddings: Floats, labels: Labels, classes: int
) -> Iterator[tuple[Axes, npt.NDArray[np.bool_]]]:
    """Give statistics and the images (N,) to be tested on them: not in them, of classes that they know."""
    if known is not None:
        tested = known.present[labels]
        if known.present.sum() > 1 and tested.any():
            yield known, tested
            return
    folds = _folds(labels, classes)
    for fold in range(FOLDS):
        seen = folds != fold
        if not seen.any():
            continue
        of_seen = axes_of(statistics(embeddings[seen], labels[seen], classes))
        tested = ~seen & of_seen.present[labels]
        if of_seen.present.sum() > 1 and tested.any():
            yield of_seen, tested


def _folds(labels: Labels, classes: int) -> Labels:
    """Return each image's fold; the images of a class are dealt out in turn."""
    folds = np.empty_like(labels)
    for label in range(classes):
        members = np.flatnonzero(labels == label)
        folds[members] = np.arange(len(members)) % FOLDS
    return folds


def _measured(axes: Axes, embeddings: Floats, labels: Labels, zero_shot: Floats) -> tuple[Doubles, Doubles]:
    """Return each image's gains (N, S, A, B) and log distances (N, S), among the classes that are known."""
    places = (np.cumsum(axes.present) - 1)[labels][:, None]
    zero_shot = zero_shot[:, axes.present]
    gains = np.empty((len(labels), *PLACES))
    distances = np.empty((len(labels), len(SHRINKAGES)))
    for s, shrinkage in enumerate(SHRINKAGES):
        discriminant, squared = discriminant_of(axes.whitening(shrinkage), shrinkage, embeddings)
        discriminant = discriminant[:, axes.present]
        distances[:, s] = np.log(np.maximum(squared[:, 0], 1e-6))
        for a, of_zero_shot in enumerate(ZERO_SHOT_FACTORS):
            for b, of_discriminant in enumerate(DISCRIMINANT_FACTORS):
                logits = np.float32(of_zero_shot) * zero_shot + np.float32(of_discriminant) * discriminant
                behind = logits - np.take_along_axis(logits, places, axis=1)
                times_a_guess = logits.shape[1] / np.exp(np.minimum(behind, 80)).sum(axis=1)
                gains[:, s, a, b] = np.log((1 - DOUBT) * times_a_guess + DOUBT)
    return gains, distances
