"""A site's own images, labelled or not, tell how its scanner moves embeddings: by expectation maximisation.

All that a scanner does is taken to be one offset for all classes. From probabilities q (N, C) of the images:

    n = mean q,  b = N / (N + 8),  offset = b (mean x - sum_c n_c M_c),  prior = b n / 2 + (1 - b / 2) / C
    q = softmax(w s unit(x - a offset) T' + l discriminant(x - offset) + log prior)

A mixture of Gaussians whose means may only move together (McLachlan and Krishnan 2008), with zero-shot beside
it. Labelled images keep their labels. Every image is seen through its products with the class means, so a
step costs N C operations and not N D.
"""

from dataclasses import dataclass

import numpy as np

from fedmedclip.edge_client.heads.gaussians import Doubles, Floats, Gaussians, discriminant
from fedmedclip.edge_client.heads.whitening import Labels, one_hot

NOT_LABELLED = -1
CENTRING = 0.25
"""How much of the offset zero-shot's embeddings are freed of (a)."""
STEPS = 20
_FEW = 8.0
_LEAST_OF_A_CLASS = 2.0


@dataclass(frozen=True)
class Mixing:
    """How much zero-shot (w) and the discriminant (l) count, and how far zero-shot is centred (a)."""

    zero_shot: float
    discriminant: float
    centring: float = 0.0


@dataclass(frozen=True)
class Linear:
    """A head: unit(x - centring) @ directions.T + x @ weights.T + biases; (C, D), (C,) and (D,) float64."""

    directions: Doubles
    centring: Doubles
    weights: Doubles
    biases: Doubles

    def logits(self, embeddings: Floats) -> Doubles:
        """Return logits (N, C) of unit embeddings (N, D)."""
        rows = embeddings.astype(np.float64)
        moved = rows - self.centring
        moved /= np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        logits: Doubles = moved @ self.directions.T + rows @ self.weights.T + self.biases
        return logits


@dataclass(frozen=True)
class Fitted:
    """What the images of a site say: its head, class shares (C,), and the offset (D,).

    `separation` is how far its classes lie apart along the federation's class means, in units of how far they
    do in the federation; `probabilities` (N, C) are the images'.
    """

    head: Linear
    shares: Doubles
    prior: Doubles
    offset: Doubles
    separation: float
    probabilities: Doubles


def unadapted(gaussians: Gaussians | None, mixing: Mixing, zero_shot: Doubles) -> Linear:
    """Return a federation's head without any offset; `zero_shot` (C, D) are its directions times scale."""
    size = zero_shot.shape[1]
    if gaussians is None:
        nothing = np.zeros_like(zero_shot)
        return Linear(zero_shot, np.zeros(size), nothing, np.zeros(len(zero_shot)))
    weights, biases = discriminant(gaussians)
    factor = mixing.discriminant
    return Linear(mixing.zero_shot * zero_shot, np.zeros(size), factor * weights, factor * biases)


def fit_offset(
    gaussians: Gaussians, mixing: Mixing, zero_shot: Doubles, embeddings: Floats, labels: Labels
) -> Fitted:
    """Return what the images (N, D), at least one, with labels (N,) or `NOT_LABELLED`, say of their scanner.

    The first probabilities are those of the head that is not adapted.
    """
    images = embeddings.astype(np.float64)
    classes, known = len(zero_shot), labels != NOT_LABELLED
    products = _Products(gaussians, zero_shot, images)
    fixed = one_hot(labels[known], classes)
    damping = len(images) / (len(images) + _FEW)
    coefficients, prior = np.zeros(classes + 1), np.full(classes, 1 / classes)
    probabilities = softmax_doubles(products.logits(mixing, coefficients, prior))
    shares = prior
    for _ in range(STEPS):
        probabilities[known] = fixed
        shares = probabilities.mean(axis=0)
        # A class that no site has does not tell where its images would lie.
        of_means = np.where(gaussians.present, shares, 0)
        weight = float(of_means.sum())
        if weight > 0:
            centred = np.concatenate([-of_means / weight, [1.0]])
            coefficients = damping * centred
        unlabelled = probabilities[~known].mean(axis=0) if not known.all() else shares
        prior = damping * unlabelled / 2 + (1 - damping / 2) / classes
        probabilities = softmax_doubles(products.logits(mixing, coefficients, prior))
    offset = products.offset(coefficients)
    weights, biases = discriminant(gaussians)
    factor = mixing.discriminant
    head = Linear(
        mixing.zero_shot * zero_shot,
        mixing.centring * offset,
        factor * weights,
        factor * (biases - weights @ offset) + np.log(prior),
    )
    separation = 1 + damping * (_separation(gaussians, products, probabilities) - 1)
    return Fitted(head, shares, prior, offset, separation, probabilities)


def softmax_doubles(logits: Doubles) -> Doubles:
    """Softmax over the last axis, float64."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Doubles = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


class _Products:
    """Products of the images with class means and their own mean, in which every offset can be expressed."""

    def __init__(self, gaussians: Gaussians, zero_shot: Doubles, images: Doubles) -> None:
        weights, self._biases = discriminant(gaussians)
        self._basis = np.concatenate([gaussians.means, images.mean(axis=0, keepdims=True)])
        self.discriminant = images @ weights.T
        self._basis_discriminant = self._basis @ weights.T
        self._cosines = images @ zero_shot.T
        self._basis_cosines = self._basis @ zero_shot.T
        self._rows = images @ self._basis.T
        self._squares = self._basis @ self._basis.T
        self._lengths = (images**2).sum(axis=1)

    def logits(self, mixing: Mixing, coefficients: Doubles, prior: Doubles) -> Doubles:
        """Return logits (N, C) with the offset of these coefficients (C + 1,)."""
        moved = self.discriminant - coefficients @ self._basis_discriminant + self._biases
        logits: Doubles = mixing.discriminant * moved + np.log(prior)
        if mixing.zero_shot:
            a = mixing.centring
            squared = self._lengths - 2 * a * (self._rows @ coefficients)
            squared += a * a * (coefficients @ self._squares @ coefficients)
            cosines = self._cosines - a * (coefficients @ self._basis_cosines)
            logits += mixing.zero_shot * cosines / np.sqrt(np.maximum(squared, 1e-12))[:, None]
        return logits

    def offset(self, coefficients: Doubles) -> Doubles:
        """Return the offset (D,) of these coefficients."""
        offset: Doubles = coefficients @ self._basis
        return offset


def _separation(gaussians: Gaussians, products: _Products, probabilities: Doubles) -> float:
    """Return the slope of the site's own class means on the federation's, in the discriminant's metric.

    Classes of fewer than two images say nothing, the others all the same.
    """
    there = gaussians.present & (probabilities.sum(axis=0) >= _LEAST_OF_A_CLASS)
    if there.sum() < 2:
        # Of a few images that may well be; all of many in one class is more likely a collapse.
        return 1.0 if len(probabilities) < _FEW else 0.0
    chosen = probabilities[:, there]
    own = chosen.T @ products.discriminant[:, there] / chosen.sum(axis=0)[:, None]
    means = gaussians.means[there]
    between = means @ gaussians.metric @ means.T

    def apart(products_with_means: Doubles) -> float:
        return float(np.trace(products_with_means) - products_with_means.mean(axis=0).sum())

    return apart(own) / max(apart(between), 1e-12)


def agreement(one: Doubles, other: Doubles) -> float:
    """Return Cohen's kappa (1960) of the answers of two sets of probabilities (N, C)."""
    first, second = one.argmax(axis=1), other.argmax(axis=1)
    by_chance = sum(
        float((first == label).mean() * (second == label).mean()) for label in range(one.shape[1])
    )
    same = float((first == second).mean())
    return 1.0 if by_chance > 1 - 1e-9 else (same - by_chance) / (1 - by_chance)
