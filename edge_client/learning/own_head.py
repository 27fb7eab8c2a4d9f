"""The private head of `one-message`: what a site makes of a version and its own images, labelled or not.

    zero-shot and Gaussians, mixed by the federation's evidence        the federation's head, for everybody
      moved by the own scanner's offset, with own shares of classes    `edge_client.heads.scanner_offset`
        corrected near own labelled images, as far as these bear out   `edge_client.learning.few_labels`

Where a site's classes lie much closer together along the federation's axes than in the federation, the
Gaussians see something else there: zero-shot answers nearly alone, or where it is worth little the
federation's head as it came. The same where nothing is labelled and the adapted head is the odd one out
of three.

`SEPARATED` and `CAUTIOUS` were tried on the hospitals of the brain MRI and of the phantoms, each left out in
turn. That separation tells scanners apart was seen on both global tests.
"""

from collections.abc import Mapping

import numpy as np

from fedmedclip.edge_client.heads.gaussians import (
    Doubles,
    Floats,
    Gaussians,
    gaussians_of,
    statistics_arrived,
)
from fedmedclip.edge_client.heads.method import Layers
from fedmedclip.edge_client.heads.scanner_offset import (
    CENTRING,
    Fitted,
    Linear,
    Mixing,
    agreement,
    fit_offset,
    softmax_doubles,
    unadapted,
)
from fedmedclip.edge_client.heads.whitening import statistics
from fedmedclip.edge_client.learning.evidence import marks_of, others
from fedmedclip.edge_client.learning.few_labels import WIDTH, Candidate, Correction, corrected
from fedmedclip.edge_client.learning.method import Adapted
from fedmedclip.edge_client.learning.own_folds import mixing_by
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification

CAPACITY = 1024
"""Labelled images that a private head holds at most; each takes D + C values."""
SEPARATED = 0.75
"""Of the federation's own separation of classes; below it the Gaussians are not believed."""
CAUTIOUS = Mixing(0.3, 0.02, CENTRING)
"""What answers then, where zero-shot is worth something."""
ADAPTED, CAUTION, FEDERATION = "adapted head", "centred zero-shot", "federation's head"
ZERO_SHOT, NOTHING = "zero-shot", "labels alone"
_REASONS = {
    ADAPTED: "the classes lie apart here as they do in the federation",
    CAUTION: "the classes lie too close together here for the Gaussians, which are nearly left out",
    FEDERATION: "adapted to these images it would not be believed: it is kept as it came",
    ZERO_SHOT: "no statistics of others have come",
    NOTHING: "nothing else was any better than a guess",
}
_LEAST_LABELS = 2
ALONE = Mixing(1.0, 0.0)
"""Zero-shot as it is."""


def private_arrays(size: int, classes: int) -> HeadSpecification:
    """A head that is linear in embeddings and in centred ones, and labelled images with what each corrects.

    Keys are transformed images, scaled so that the kernel is exp(-squared distance). Unused places say 0.
    """
    return HeadSpecification(
        (
            TensorSpecification("directions", (classes, size)),
            TensorSpecification("centring", (size,)),
            TensorSpecification("weights", (classes, size)),
            TensorSpecification("biases", (classes,)),
            TensorSpecification("transform", (size, size)),
            TensorSpecification("keys", (CAPACITY, size)),
            TensorSpecification("corrections", (CAPACITY, classes)),
        )
    )


def private_pass(layers: Layers, private: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """Return a site's own logits (N, C) of embeddings (N, D)."""
    centred = layers.unit_rows(embeddings - private["centring"])
    logits = centred @ private["directions"].T + embeddings @ private["weights"].T + private["biases"]
    used = np.abs(private["corrections"]).sum(axis=1) > 0
    if used.any():
        keys = private["keys"][used]
        points = embeddings @ private["transform"]
        squared = (points**2).sum(axis=1, keepdims=True) + (keys**2).sum(axis=1) - 2 * (points @ keys.T)
        logits = logits + np.exp(-np.maximum(squared, 0)) @ private["corrections"][used]
    found: Floats = logits
    return found


def adapt(
    shared: NamedArrays, images: OwnImages, class_embeddings: Floats, scale: float, seed: int
) -> Adapted:
    """Return the private head of a site for this version, from its images, however few, labelled or not."""
    classes = len(class_embeddings)
    zero_shot = scale * class_embeddings.astype(np.float64)
    gaussians = gaussians_of(_of_others(shared, images, classes))
    mixing, zero_shot_is_good = mixing_by(shared, classes)
    heads, adapted = _heads(gaussians, mixing, zero_shot_is_good, zero_shot, images)
    kept = next(iter(heads))
    labelled = images.chosen(images.labelled)
    if len(np.unique(labelled.labels)) < _LEAST_LABELS:
        # Labels of one class say nothing alone.
        del heads[NOTHING]
    correction = Correction(kept, None)
    space = _space(gaussians, labelled, classes)
    if len(labelled.labels) >= _LEAST_LABELS:
        labelled = _remembered(labelled, seed)
        points = labelled.embeddings.astype(np.float64) @ space
        length = _mean_length(images, space)
        correction = corrected(
            {
                name: Candidate(head.logits(labelled.embeddings), prior)
                for name, (head, prior) in heads.items()
            },
            points / length,
            labelled.labels,
            labelled.groups,
            seed,
        )
        space = space * (np.sqrt(WIDTH) / length)
    head = heads[correction.candidate][0]
    private = _private_head(head, correction, labelled.embeddings, space)
    return _described(private, correction, adapted, heads, zero_shot, images, kept)


def _of_others(shared: NamedArrays, images: OwnImages, classes: int) -> NamedArrays:
    """Return the statistics without this site's part, where it has one; without any where none is left.

    What is said of an image then comes from others, as of a new one. A site that is alone has its own.
    """
    if not (images.shown & images.labelled).any():
        return shared
    sent = images.chosen(images.shown & images.labelled)
    own = statistics(sent.embeddings, sent.labels, classes) | {
        "marks": marks_of(sent.embeddings, sent.labels)
    }
    left = others(shared, own, statistics_arrived)
    return {name: np.zeros_like(array) for name, array in shared.items()} if left is None else shared | left


_Heads = dict[str, tuple[Linear, Doubles]]


def _heads(
    gaussians: Gaussians | None,
    mixing: Mixing,
    zero_shot_is_good: bool,
    zero_shot: Doubles,
    images: OwnImages,
) -> tuple[_Heads, Fitted | None]:
    """Return the heads that labels may correct, with their priors (C,): the one that is believed first."""
    classes = len(zero_shot)
    even = np.full(classes, 1 / classes)
    nothing = Linear(0 * zero_shot, np.zeros(zero_shot.shape[1]), 0 * zero_shot, np.zeros(classes))
    alone = unadapted(None, ALONE, zero_shot)
    if gaussians is None:
        return {ZERO_SHOT: (alone, even), NOTHING: (nothing, even)}, None
    federation = unadapted(gaussians, mixing, zero_shot)
    if not len(images.embeddings):
        return {FEDERATION: (federation, even), NOTHING: (nothing, even)}, None
    centred = Mixing(mixing.zero_shot, mixing.discriminant, CENTRING)
    found = fit_offset(gaussians, centred, zero_shot, images.embeddings, images.labels)
    cautious = fit_offset(gaussians, CAUTIOUS, zero_shot, images.embeddings, images.labels)
    heads = {
        ADAPTED: (found.head, found.prior),
        FEDERATION: (federation, even),
        NOTHING: (nothing, even),
    }
    if zero_shot_is_good:
        heads[CAUTION] = (cautious.head, cautious.prior)
    if found.separation < SEPARATED:
        first = CAUTION if zero_shot_is_good else FEDERATION
    else:
        others_alone = unadapted(gaussians, Mixing(0.0, 1.0), zero_shot)
        # Labels tell better than agreement does.
        unsure = not images.labelled.any() and _is_odd_one_out(found, alone, others_alone, images.embeddings)
        first = FEDERATION if unsure else ADAPTED
    return {first: heads[first], **heads}, found


def _is_odd_one_out(found: Fitted, zero_shot: Linear, gaussians: Linear, embeddings: Floats) -> bool:
    """Whether zero-shot and Gaussians that are not adapted agree with each other more than with `found`."""
    one, other = (softmax_doubles(head.logits(embeddings)) for head in (zero_shot, gaussians))
    between = agreement(one, other)
    return all(agreement(found.probabilities, each) < between for each in (one, other))


def _space(gaussians: Gaussians | None, labelled: OwnImages, classes: int) -> Doubles:
    """Return the transform (D, D) of the space in which labels reach: the federation's, or the site's own."""
    if gaussians is None and len(labelled.labels):
        gaussians = gaussians_of(statistics(labelled.embeddings, labelled.labels, classes))
    return np.eye(labelled.embeddings.shape[1]) if gaussians is None else gaussians.root


def _mean_length(images: OwnImages, space: Doubles) -> float:
    """Return the root of the images' mean squared distance from their mean in this space."""
    points = images.embeddings.astype(np.float64) @ space
    return max(float(np.sqrt(points.var(axis=0).sum())), 1e-6)


def _remembered(labelled: OwnImages, seed: int) -> OwnImages:
    """Return at most `CAPACITY` labelled images, drawn at random."""
    if len(labelled.labels) <= CAPACITY:
        return labelled
    kept = np.zeros(len(labelled.labels), dtype=np.bool_)
    kept[np.random.Generator(np.random.Philox(seed)).permutation(len(kept))[:CAPACITY]] = True
    return labelled.chosen(kept)


def _private_head(head: Linear, correction: Correction, keys: Floats, space: Doubles) -> NamedArrays:
    classes, size = head.directions.shape
    private = {
        "directions": head.directions,
        "centring": head.centring,
        "weights": head.weights,
        "biases": head.biases,
        "transform": np.zeros((size, size)),
        "keys": np.zeros((CAPACITY, size)),
        "corrections": np.zeros((CAPACITY, classes)),
    }
    if correction.factors is not None:
        private["transform"] = space
        private["keys"][: len(keys)] = keys.astype(np.float64) @ space
        private["corrections"][: len(keys)] = correction.factors
    return {name: array.astype(np.float32) for name, array in private.items()}


def _described(
    private: NamedArrays,
    correction: Correction,
    found: Fitted | None,
    heads: _Heads,
    zero_shot: Doubles,
    images: OwnImages,
    first: str,
) -> Adapted:
    kept, labels = correction.candidate, int(images.labelled.sum())
    reason = _REASONS[kept] if kept == first else f"{labels} labels bear it out better than the {first}"
    if correction.factors is not None:
        reason += "; corrected near the labelled images"
    classes = len(zero_shot)
    if found is None:
        return Adapted(private, kept, reason, np.full(classes, 1 / classes), labels)
    answers, one, other = (
        softmax_doubles(head.logits(images.embeddings))
        for head in (heads[kept][0], unadapted(None, ALONE, zero_shot), heads[FEDERATION][0])
    )
    return Adapted(
        private,
        kept,
        reason,
        answers.mean(axis=0),
        labels,
        found.separation,
        float(np.linalg.norm(found.offset)),
        agreement(answers, one),
        agreement(answers, other),
    )
