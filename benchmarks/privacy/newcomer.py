"""A newcomer that has a federation's statistics, private or not, and few labels or none of its own.

By expectation maximisation it finds how its scanner moves all embeddings and what its class shares are; the
mixture of zero-shot and the federation's Gaussians is `edge_client.privacy.mixing`'s, private or not. Nothing
here is of the newcomer's test images, and no constant differs between data sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import softmax
from fedmedclip.edge_client.heads.whitening import Labels, one_hot

Doubles = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

DIRECTIONS = 8
SHRINKAGE = 1.0
_CENTRING = 0.25
_PRIOR_IMAGES = 20.0
_STEPS = 12


@dataclass(frozen=True)
class Gaussians:
    """Class means (C, D) and the root (D, D) of their metric."""

    means: Doubles
    root: Doubles

    def discriminant(self, embeddings: Doubles, means: Doubles | None = None) -> Doubles:
        """Return logits (N, C) of rows (N, D), by other means where they are given."""
        prototypes = (self.means if means is None else means) @ self.root
        logits: Doubles = embeddings @ self.root @ prototypes.T - (prototypes**2).sum(axis=1) / 2
        return logits


def gaussians_of(shared: Mapping[str, Floats]) -> Gaussians:
    """Return the Gaussians of shared statistics; all but the scatter's leading directions as their mean."""
    shares = shared["class_shares"].astype(np.float64)
    means = shared["class_sums"].astype(np.float64) / np.maximum(shares, 1e-3)[:, None]
    means[shares < 1e-3] = means[shares >= 1e-3].mean(axis=0)
    values, vectors = np.linalg.eigh(shared["scatter"].astype(np.float64))
    values = np.maximum(values, 0)
    unit = float(values.mean())
    values[:-DIRECTIONS] = values[:-DIRECTIONS].mean()
    return Gaussians(means, vectors / np.sqrt(values + SHRINKAGE * unit))


def pooled(statistics: Sequence[Mapping[str, Floats]], images: Sequence[float]) -> dict[str, Floats]:
    """Return the mean of sites' statistics, each weighed by its number of images."""
    weights = np.array(images) / sum(images)
    return {
        name: sum(weight * one[name] for weight, one in zip(weights, statistics, strict=True))
        for name in statistics[0]
    }


@dataclass(frozen=True)
class Newcomer:
    """What it has: embeddings (N, D) without labels, and a few (n, D) with labels (n,)."""

    unlabelled: Floats
    labelled: Floats
    labels: Labels

    def answers(
        self, gaussians: Gaussians, mixing: tuple[float, float], zero_shot: Doubles, embeddings: Floats
    ) -> Labels:
        """Return the classes (M,) that it gives to other images (M, D).

        `mixing` are the factors of `zero_shot` (C, D), class embeddings times logit scale, and discriminant.
        """
        of_captions, of_gaussians = mixing
        images = self.unlabelled.astype(np.float64)
        fixed = one_hot(self.labels, len(zero_shot))
        seen, known = fixed.sum(axis=0), self.labelled.astype(np.float64)
        everything = np.concatenate([images, known])
        offset, prior, means = np.zeros(images.shape[1]), np.zeros(len(zero_shot)), gaussians.means

        def logits(rows: Doubles) -> Doubles:
            moved = rows - _CENTRING * offset
            moved = moved / np.linalg.norm(moved, axis=1, keepdims=True)
            discriminant = gaussians.discriminant(rows - offset, means)
            found: Doubles = of_captions * moved @ zero_shot.T + of_gaussians * discriminant + prior
            return found

        probabilities = softmax(images @ zero_shot.T)
        for _ in range(_STEPS):
            shares = np.concatenate([probabilities, fixed]).mean(axis=0)
            offset = everything.mean(axis=0) - shares @ gaussians.means
            prior = np.log((probabilities.mean(axis=0) + 1 / len(zero_shot)) / 2)
            own = fixed.T @ known - seen[:, None] * offset
            means = (_PRIOR_IMAGES * gaussians.means + own) / (_PRIOR_IMAGES + seen)[:, None]
            probabilities = softmax(logits(images))
        answers: Labels = logits(embeddings.astype(np.float64)).argmax(axis=1)
        return answers
