"""How much zero-shot and the federation's Gaussians are worth: what sites see on folds of their own images.

A site tests Gaussians of two thirds of its images on the last third, groups kept whole, at each place of a
grid, and sends one figure for each: a federation needs no second round for it. What folds cannot show is that
another site's images lie elsewhere; so a head for other sites takes both factors smaller than folds would
have them (`TO_ANOTHER_SITE`).
"""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.gaussians import Doubles, Floats, discriminant, gaussians_of
from fedmedclip.edge_client.heads.scanner_offset import Mixing
from fedmedclip.edge_client.heads.whitening import Labels, statistics
from fedmedclip.protocol.heads.head import TensorSpecification

ZERO_SHOT_FACTORS = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 1.0)
DISCRIMINANT_FACTORS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
PLACES = len(ZERO_SHOT_FACTORS) * len(DISCRIMINANT_FACTORS)
FOLDS = 3
DOUBT = 0.05
"""The share of labels taken to be drawn at random: one image says at most log(0.05) against a place."""
TO_ANOTHER_SITE = (0.5, 0.7)
"""Times the factors of zero-shot and discriminant."""
WITHOUT_EVIDENCE = Mixing(0.3, 0.2)
_SHARPNESS = 60.0
_GOOD_ENOUGH = 0.5
_LEAST_FACTOR = 0.01


def evidence_array() -> TensorSpecification:
    """Return the array of the pooled evidence: 0 where there is none."""
    bound = 1 / float(np.sqrt(PLACES))
    return TensorSpecification("evidence", (PLACES,), lowest=-bound, measured=True, largest_change=2 * bound)


def evidence_of(
    embeddings: Floats, labels: Labels, groups: Labels, zero_shot: Doubles, seed: int
) -> Floats | None:
    """Return a site's figures (PLACES,) for images (N, D) with labels and groups (N,); None with too few.

    `zero_shot` (C, D) are its directions times scale. Each figure is the mean log likelihood of the labels
    less that of a guess, in units of the largest possible one, over the root of `PLACES`.
    """
    classes = len(zero_shot)
    gains: list[Doubles] = []
    for seen, tested in _folds(groups, seed):
        gaussians = gaussians_of(statistics(embeddings[seen], labels[seen], classes))
        if gaussians is None:
            continue
        known = tested & gaussians.present[labels]
        rows, chosen = embeddings[known].astype(np.float64), gaussians.present
        weights, biases = (part[chosen] for part in discriminant(gaussians))
        of_labels = (np.cumsum(chosen) - 1)[labels[known]]
        gains.append(gains_at(rows @ zero_shot[chosen].T, rows @ weights.T + biases, of_labels))
    if not sum(map(len, gains)):
        return None
    largest = max(np.log(classes), -np.log(DOUBT))
    mean = np.concatenate(gains).mean(axis=0) / largest
    figures: Floats = (np.clip(mean, -1, 1) / np.sqrt(PLACES)).astype(np.float32)
    return figures


def gains_at(zero_shot: Doubles, discriminants: Doubles, labels: Labels) -> Doubles:
    """Return each image's gain over a guess (N, PLACES) by logits (N, C) of both."""
    gains = np.empty((len(labels), PLACES))
    for place, (of_zero_shot, of_discriminant) in enumerate(_places()):
        gains[:, place] = gain(of_zero_shot * zero_shot + of_discriminant * discriminants, labels)
    return gains


def gain(logits: Doubles, labels: Labels) -> Doubles:
    """Return the log likelihood of labels (N,) by logits (N, C), less a guess's, each label doubted."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    times_a_guess = logits.shape[1] / np.exp(np.minimum(logits - own, 80)).sum(axis=1)
    gains: Doubles = np.log((1 - DOUBT) * times_a_guess + DOUBT)
    return gains


def mixing_by(shared: Mapping[str, Floats], classes: int) -> tuple[Mixing, bool]:
    """Return the mixing for another site, and whether zero-shot alone is worth leaving images to.

    Factors are means over the grid by how well each place did, the discriminant's of their logarithms: what
    few sites find is too noisy for the best place alone.
    """
    figures = shared["evidence"].astype(np.float64)
    if not figures.any():
        return WITHOUT_EVIDENCE, True
    gains = figures * np.sqrt(PLACES) * max(np.log(classes), -np.log(DOUBT))
    shares = np.exp(_SHARPNESS * (gains - gains.max()))
    shares /= shares.sum()
    places = np.array(list(_places()))
    zero_shot = float(shares @ places[:, 0]) * TO_ANOTHER_SITE[0]
    of_discriminant = float(np.exp(shares @ np.log(places[:, 1]))) * TO_ANOTHER_SITE[1]
    nearly_alone = gains[places[:, 1] == min(DISCRIMINANT_FACTORS)].max()
    return Mixing(zero_shot, of_discriminant), bool(nearly_alone >= _GOOD_ENOUGH * gains.max())


def evidence_for(mixing: Mixing) -> Floats:
    """Return figures (PLACES,) by which `mixing_by` finds about this mixing, where images may not be asked.

    Zero-shot alone counts as worth something: nobody knows better.
    """
    places = np.array(list(_places()))
    wanted = np.array([mixing.zero_shot, mixing.discriminant]) / TO_ANOTHER_SITE
    distances = np.abs(np.log((places + _LEAST_FACTOR) / (wanted + _LEAST_FACTOR))).sum(axis=1)
    # Smooth, so that sites which differ a little agree on a place between theirs.
    gains = _GOOD_ENOUGH + (1 - _GOOD_ENOUGH) * np.exp(-distances)
    figures: Floats = (gains / np.sqrt(PLACES)).astype(np.float32)
    return figures


def _places() -> Iterator[tuple[float, float]]:
    return ((w, b) for w in ZERO_SHOT_FACTORS for b in DISCRIMINANT_FACTORS)


def _folds(groups: Labels, seed: int) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    for fold in range(FOLDS):
        tested = fold_of_groups(groups, FOLDS, seed) == fold
        if tested.any() and not tested.all():
            yield ~tested, tested


def fold_of_groups(groups: Labels, number: int, seed: int) -> Labels:
    """Return the fold (N,) of each image; the images of a group (N,) are in one, whatever its number is."""
    _, first, places = np.unique(groups, return_index=True, return_inverse=True)
    drawn = np.random.Generator(np.random.Philox(seed)).permutation(len(first))
    of_group = np.empty(len(first), dtype=np.int64)
    of_group[np.argsort(first)] = drawn % number
    return of_group[places]
