"""Zero-shot and the Gaussian discriminant of the shared statistics: how much each says, decided on evidence.

    logits = a * zero-shot + b * D * (1 + shrinkage) * discriminant

Zero-shot may be too sure of itself on medical images, or worth nothing; the discriminant of many dimensions
and few images is too sure of itself as well. So both factors, and the shrinkage of the scatter, are those on
a small grid that make images most likely which are not in the statistics (`edge_client.learning.evidence`).
What sites find at each place of the grid is pooled by a weighted mean, like the statistics themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.whitening import SHRINKAGES, Floats, Whitening
from fedmedclip.protocol.heads.head import NamedArrays, TensorSpecification

Doubles = npt.NDArray[np.float64]

ZERO_SHOT_FACTORS = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 0.0)
DISCRIMINANT_FACTORS = (0.0, *(2.0**power for power in range(-7, 1)))
PLACES = (len(SHRINKAGES), len(ZERO_SHOT_FACTORS), len(DISCRIMINANT_FACTORS))
"""The grid's shape (S, A, B): shrinkages, factors of zero-shot, factors of the discriminant."""
DOUBT = 0.05
"""The share of labels taken to be drawn at random: one image says at most log(0.05) against a place."""
_LARGEST_LOG_DISTANCE = 4.0
_GUESS = (slice(None), -1, 0)


@dataclass(frozen=True)
class Evidence:
    """What left-out images say, float64.

    `gains` (S, A, B) is their mean log likelihood at each place less that of a guess, in nats; `reach` (S, 2)
    the median and the 95th percentile of the logarithm of their squared distances to the nearest class, in
    units of `Whitening.expected`.
    """

    gains: Doubles
    reach: Doubles


NO_EVIDENCE = Evidence(np.zeros(PLACES), np.zeros((len(SHRINKAGES), 2)))


@dataclass(frozen=True)
class Choice:
    """What the shared head does.

    The discriminant is whole for images whose squared distance is up to `near` and is left out from `far` on,
    where zero-shot answers alone, times `alone`.
    """

    shrinkage: float
    zero_shot: float
    discriminant: float
    alone: float
    near: float
    far: float


def evidence_arrays() -> tuple[TensorSpecification, ...]:
    """Return the arrays of the pooled evidence, 0 where there is none.

    Each site measures them anew in each round. No site moves a value by more than its share of the whole
    range, however it lies.
    """
    size, distances = int(np.prod(PLACES)), 2 * len(SHRINKAGES)
    return (
        _within_one("evidence", size),
        _within_one("reach", distances),
    )


def encoded(evidence: Evidence, classes: int) -> NamedArrays:
    """Return evidence as arrays of the shared head, each of Euclidean length 1 at most."""
    largest_gain = max(np.log(classes), -np.log(DOUBT))
    return {
        "evidence": _to_unit(evidence.gains / largest_gain),
        "reach": _to_unit(evidence.reach / _LARGEST_LOG_DISTANCE),
    }


def pooled(shared: Mapping[str, Floats]) -> Evidence | None:
    """Return the evidence in a shared head, up to a factor of all gains; None where nobody has given any."""
    if not shared["evidence"].any():
        return None
    gains = shared["evidence"].astype(np.float64).reshape(PLACES)
    reach = shared["reach"].astype(np.float64).reshape(-1, 2)
    return Evidence(gains, reach * _LARGEST_LOG_DISTANCE * np.sqrt(reach.size))


def choice_by(evidence: Evidence) -> Choice:
    """Return the place where left-out images are most likely, zero-shot as it is where none is better.

    The discriminant reaches as far as 95 of 100 left-out images and fades over as far again as these lie
    beyond the median: on images farther away there is no evidence. Where zero-shot is no better than a guess,
    there is nothing to leave them to.
    """
    gains = evidence.gains.copy()
    gains[_GUESS] = -np.inf
    shrinkage, zero_shot, discriminant = np.unravel_index(int(np.argmax(gains)), PLACES)
    of_zero_shot = gains[shrinkage, :, 0]
    median, near = np.exp(np.clip(evidence.reach[shrinkage], -_LARGEST_LOG_DISTANCE, _LARGEST_LOG_DISTANCE))
    far = near + max(near - median, 1e-3)
    if of_zero_shot.max() <= 0:
        near = far = np.inf
    return Choice(
        SHRINKAGES[shrinkage],
        ZERO_SHOT_FACTORS[zero_shot],
        DISCRIMINANT_FACTORS[discriminant],
        ZERO_SHOT_FACTORS[int(np.argmax(of_zero_shot))],
        float(near),
        float(far),
    )


def discriminant_of(space: Whitening, shrinkage: float, embeddings: Floats) -> tuple[Floats, Floats]:
    """Return the Gaussian discriminant (N, C) of embeddings, and their squared distances (N, 1).

    The former is half the negative squared distance to each class mean, without the part that all classes
    share, 0 for a class that nobody has; the latter is to the nearest class, in units of what is expected.
    """
    whitened = space.apply(embeddings)
    prototypes = space.prototypes.astype(np.float32)
    present = space.present.astype(np.float32)
    nearness = whitened @ prototypes.T - (prototypes**2).sum(axis=1) / 2
    among = nearness - np.float32(1e9) * (1 - present)
    squared = (whitened**2).sum(axis=1, keepdims=True) - 2 * among.max(axis=1, keepdims=True)
    scale = np.float32(prototypes.shape[1] * (1 + shrinkage))
    return nearness * (scale * present), squared / np.float32(space.expected)


def mixed(choice: Choice, zero_shot: Floats, discriminant: Floats, distances: Floats) -> Floats:
    """Return the shared head's logits (N, C)."""
    logits: Floats
    if not np.isfinite(choice.far):
        logits = choice.zero_shot * zero_shot + choice.discriminant * discriminant
        return logits.astype(np.float32)
    trust = np.minimum(np.maximum((choice.far - distances) / (choice.far - choice.near), 0), 1)
    factor = choice.alone + (choice.zero_shot - choice.alone) * trust
    logits = factor * zero_shot + choice.discriminant * (trust * discriminant)
    return logits.astype(np.float32)


def _within_one(name: str, size: int) -> TensorSpecification:
    bound = 1 / float(np.sqrt(size))
    return TensorSpecification(name, (size,), lowest=-bound, measured=True, largest_change=2 * bound)


def _to_unit(values: Doubles) -> Floats:
    flat: Floats = (np.clip(values, -1, 1) / np.sqrt(values.size)).astype(np.float32).ravel()
    return flat
