"""A site's own labels correct a head that it was given: kernel logistic regression with that head's logits.

    logits(x) = head(x) + sum_i k(x, x_i) a_i,   a by maximum likelihood with penalty  ridge/2 a' K a

Far from the labelled images the head is left alone; the more labels lie near, the more they say. Whether they
are believed, and which of several heads is corrected, is what makes labels most likely that were left out,
whole groups at a time, each with one vote. A head that is not the usual one must be better by `CONVINCING`
nats: a handful of labels moves nothing by chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fedmedclip.edge_client.heads.gaussians import Doubles
from fedmedclip.edge_client.heads.scanner_offset import softmax_doubles
from fedmedclip.edge_client.heads.whitening import Labels, one_hot
from fedmedclip.edge_client.learning.own_folds import fold_of_groups, gain

WIDTH, RIDGE = 1.8, 0.3
"""The kernel is exp(-width * squared distance) of points."""
CONVINCING = 5.0
SEARCHED = 256
"""Images that the choice is made on at most."""
_FOLDS, _LEAVE_ONE_OUT = 5, 20
_STEPS_OF_SEARCH, _STEPS = 30, 60


@dataclass(frozen=True)
class Candidate:
    """A head that labels may correct: its logits (N, C) of the labelled images, and its prior (C,)."""

    logits: Doubles
    prior: Doubles


@dataclass(frozen=True)
class Correction:
    """Which candidate is corrected, and by what: (N, C) factors of the kernel; None for nothing."""

    candidate: str
    factors: Doubles | None


def corrected(
    candidates: Mapping[str, Candidate], points: Doubles, labels: Labels, groups: Labels, seed: int
) -> Correction:
    """Return the correction for images at `points` (N, D), of mean squared length 1, with labels (N,).

    The first of the candidates is the usual one.
    """
    name, believed = _choice(candidates, points, labels, groups, seed)
    if not believed:
        return Correction(name, None)
    chosen = candidates[name]
    targets = one_hot(labels, chosen.logits.shape[1])
    start = chosen.logits + _own_shares(targets, chosen.prior)
    return Correction(name, _fit(_kernel(points), start, targets, _STEPS))


def _choice(
    candidates: Mapping[str, Candidate], points: Doubles, labels: Labels, groups: Labels, seed: int
) -> tuple[str, bool]:
    """Return the candidate, and whether it is corrected."""
    searched = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))[:SEARCHED]
    points, labels, groups = points[searched], labels[searched], groups[searched]
    _, places, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    votes = 1 / sizes[places]
    folds = fold_of_groups(groups, _FOLDS if len(sizes) > _LEAVE_ONE_OUT else len(sizes), seed)
    usual = next(iter(candidates))
    scores: dict[tuple[str, bool], float] = {}
    for name, candidate in candidates.items():
        for kernel in (None, _kernel(points)):
            left_out = _left_out(kernel, candidate.logits[searched], candidate.prior, labels, folds)
            worth = float(votes @ gain(left_out, labels))
            scores[name, kernel is not None] = worth - CONVINCING * (name != usual)
    return max(scores, key=lambda place: scores[place])


def _left_out(
    kernel: Doubles | None, logits: Doubles, prior: Doubles, labels: Labels, folds: Labels
) -> Doubles:
    """Return logits (N, C) of images by the labels of other folds, without a kernel only by their shares."""
    targets = one_hot(labels, logits.shape[1])
    found = logits.copy()
    for fold in range(int(folds.max()) + 1):
        seen, tested = folds != fold, folds == fold
        own_shares = _own_shares(targets[seen], prior)
        found[tested] += own_shares
        if kernel is not None and seen.any():
            start = logits[seen] + own_shares
            factors = _fit(kernel[np.ix_(seen, seen)], start, targets[seen], _STEPS_OF_SEARCH)
            found[tested] += kernel[np.ix_(tested, seen)] @ factors
    return found


def _own_shares(targets: Doubles, prior: Doubles) -> Doubles:
    """Return what makes logits (C,) of this prior those for the labelled images' own shares of classes.

    Images were labelled because they were chosen to be, and may be of other shares than the site's
    (Saerens et al. 2002).
    """
    shares = (targets.sum(axis=0) + 1) / (len(targets) + targets.shape[1])
    own: Doubles = np.log(shares) - np.log(prior)
    return own


def _fit(kernel: Doubles, start: Doubles, targets: Doubles, steps: int) -> Doubles:
    """Return the factors (N, C) of the penalised likelihood's maximum.

    Accelerated gradient steps (Nesterov 1983) in the kernel's eigenvectors, each as long as Boehning's bound
    on the curvature (1992) allows: no step is ever too long.
    """
    values, vectors = np.linalg.eigh(kernel)
    roots = np.sqrt(np.maximum(values, 0))
    features = vectors * roots
    curvature = (0.5 * roots**2 + RIDGE)[:, None]
    here = np.zeros_like(start)
    ahead, momentum = here, 1.0
    for _ in range(steps):
        slope = features.T @ (softmax_doubles(start + features @ ahead) - targets) + RIDGE * ahead
        there = ahead - slope / curvature
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = there + (momentum - 1) / following * (there - here)
        here, momentum = there, following
    usable = roots > 1e-5
    factors: Doubles = vectors[:, usable] @ (here[usable] / roots[usable, None])
    return factors


def _kernel(points: Doubles) -> Doubles:
    squares = (points**2).sum(axis=1)
    squared = squares[:, None] + squares - 2 * (points @ points.T)
    near: Doubles = np.exp(-WIDTH * np.maximum(squared, 0))
    return near
