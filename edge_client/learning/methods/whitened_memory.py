"""Whitened memory, this project's own method: closed form, numpy only, without gradient.

Shared: what the embeddings of all sites have in common, as sufficient statistics that a weighted mean pools
exactly: how they vary *within* a class (scatter D x D), and where each class lies (sums and shares).
`edge_client.heads.whitening` says what they are good for. Beside them the evidence of how much their Gaussian
discriminant is worth next to zero-shot, and how far from the images (`edge_client.heads.discriminant`), which
each site gives anew in each round on statistics that it is not in (`edge_client.learning.evidence`).

Private: kernel ridge regression on the site's own whitened embeddings, a memory as in Tip-Adapter (Zhang et
al. 2022). What it says fades to nothing far from its images. Its kernel is chosen by leave-one-out.

    embedding -> whiten(shared) -> Gaussian discriminant + zero-shot, by evidence -> shared probabilities
                                -> kernel to the site's own images -> private probabilities

Round 1 sends the statistics, and evidence from folds of the site's own images; round 2 sends evidence on the
other sites' statistics. A lossy codec brings both over several rounds.

What is left to choose are conventions: grids, from which evidence chooses; that 95 of 100 left-out images are
near (`choice_by`); that 5 of 100 labels are noise (`DOUBT`); Akaike's penalty. They were tried on the data of
`tests/edge_client/learning/calibration_examples.py`. The design, of whitening, a memory and a discriminant
that fades, was found on the brain MRI and the phantoms.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.discriminant import (
    NO_EVIDENCE,
    choice_by,
    discriminant_of,
    encoded,
    evidence_arrays,
    mixed,
    pooled,
)
from fedmedclip.edge_client.heads.ensemble import softmax
from fedmedclip.edge_client.heads.method import Layers
from fedmedclip.edge_client.heads.whitening import Axes, Floats, Labels, arrived, axes_of, one_hot, statistics
from fedmedclip.edge_client.learning.evidence import evidence_of, marks_array, marks_of, others
from fedmedclip.edge_client.learning.method import ClosedFormMethod
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification

CAPACITY = 1024
"""Images that a memory holds at most; each takes D + C values."""
SEARCHED = 256
"""Images that the kernel's numbers are searched on at most: what they gain by more is not worth the time."""
WIDTHS = (0.2, 0.6, 1.8)
"""The kernel is exp(-width * squared distance / mean squared length of the class means and images)."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0)
_TEMPERATURES = np.geomspace(1, 64, 25)


def shared_arrays(size: int, classes: int) -> HeadSpecification:
    """Sufficient statistics of the sites' embeddings, as means per image: a weighted mean pools them.

    Shares and spread are not negative in the end, but may be on the way there: a limit would keep for good
    what a lossy codec takes back later. They come first, before any matrix that they could be a column of:
    whoever reads the rest needs them right.
    """
    return HeadSpecification(
        (
            TensorSpecification("class_shares", (classes,)),
            TensorSpecification("spread", (1,)),
            marks_array(),
            *evidence_arrays(),
            TensorSpecification("class_sums", (classes, size)),
            TensorSpecification("scatter", (size, size)),
        )
    )


def private_arrays(size: int, classes: int) -> HeadSpecification:
    """The whitening, the whitened images remembered, and what each says.

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


def shared_pass(
    layers: Layers,
    shared: Mapping[str, Floats],
    embeddings: Floats,
    class_embeddings: Floats,
    logit_scale: float,
) -> tuple[Floats, Floats]:
    """Return the embeddings (N, D) as they are, for the memory, and the logits (N, C) of the shared head.

    They are zero-shot's until the statistics have come, and evidence on them.
    """
    zero_shot = logit_scale * (embeddings @ class_embeddings.T)
    evidence = pooled(shared)
    if evidence is None or not arrived(shared):
        return embeddings, zero_shot
    choice = choice_by(evidence)
    space = axes_of(shared).whitening(choice.shrinkage)
    discriminant, distances = discriminant_of(space, choice.shrinkage, embeddings)
    return embeddings, mixed(choice, zero_shot, discriminant, distances)


def private_pass(layers: Layers, private: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """Return the memory's logits (N, C) of embeddings (N, D)."""
    used = np.abs(private["evidence"]).sum(axis=1) > 0
    whitened = ((embeddings - private["centre"]) @ private["transform"]).astype(np.float32)
    near = _kernel(whitened, private["keys"][used])
    logits: Floats = near @ private["evidence"][used]
    return logits


def fit(
    shared: NamedArrays,
    embeddings: Floats,
    labels: Labels,
    class_embeddings: Floats,
    logit_scale: float,
    seed: int,
) -> tuple[NamedArrays, NamedArrays, float]:
    """Return the site's statistics and evidence, its memory, and the memory's leave-one-out loss.

    A site that has nothing to say on the discriminant gives back what evidence there is. The memory's space
    is whitened by the others' statistics, so that what it says of an image left out is as of a new one; until
    these have come by the site's own, and then it thinks better of itself than it is.
    """
    classes = len(class_embeddings)
    own = statistics(embeddings, labels, classes) | {"marks": marks_of(embeddings, labels)}
    zero_shot = logit_scale * (embeddings @ class_embeddings.T)
    known = others(shared, own)
    axes = axes_of(known or own)
    evidence = evidence_of(axes if known else None, embeddings, labels, zero_shot)
    if evidence is None:
        own |= {name: shared[name].copy() for name in ("evidence", "reach")}
    else:
        own |= encoded(evidence, classes)
    choice = choice_by(pooled(shared) or evidence or NO_EVIDENCE)
    private, loss = _memory(axes, choice.shrinkage, embeddings, labels, classes, seed)
    return own, private, loss


def _memory(
    axes: Axes, shrinkage: float, embeddings: Floats, labels: Labels, classes: int, seed: int
) -> tuple[NamedArrays, float]:
    """Return the memory in the space of these axes, and its leave-one-out loss.

    Kernel ridge regression towards one-hot labels. Width and ridge are those of the grid that make
    leave-one-out predictions most likely at the best temperature, on `SEARCHED` images at most; the
    temperature is the best for all.
    """
    space = axes.whitening(shrinkage)
    between = float((space.prototypes[space.present] ** 2).sum(axis=1).mean())
    transform = (space.transform / np.sqrt(space.expected + between)).astype(np.float32)
    centre = space.centre.astype(np.float32)
    kept = _remembered(labels, classes, seed, CAPACITY)
    searched = _remembered(labels, classes, seed, SEARCHED)
    width, ridge = most_likely_kernel((embeddings[searched] - centre) @ transform, labels[searched], classes)
    transform *= np.float32(np.sqrt(width))
    keys: Floats = (embeddings[kept] - centre) @ transform
    targets = one_hot(labels[kept], classes) - 1 / classes
    inverse = np.linalg.inv(_kernel(keys, keys).astype(np.float64) + ridge * np.eye(len(kept)))
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
    return private, loss


def most_likely_kernel(whitened: Floats, labels: Labels, classes: int) -> tuple[float, float]:
    """Return the width and ridge by leave-one-out (Rasmussen and Williams 2006, equation 5.12)."""
    targets = one_hot(labels, classes) - 1 / classes
    losses: dict[tuple[float, float], float] = {}
    for width in WIDTHS:
        scaled = whitened * np.float32(np.sqrt(width))
        values, vectors = np.linalg.eigh(_kernel(scaled, scaled).astype(np.float64))
        turned, squares = vectors.T @ targets, vectors**2
        for ridge in RIDGES:
            shares = 1 / (np.maximum(values, 0) + ridge)
            left_out = targets - vectors @ (shares[:, None] * turned) / (squares @ shares)[:, None]
            losses[width, ridge] = _most_likely_temperature(left_out, labels)[1]
    return min(losses, key=lambda kernel: losses[kernel])


def _most_likely_temperature(scores: npt.NDArray[np.float64], labels: Labels) -> tuple[float, float]:
    """Return the factor of scores (N, C) that makes the labels most likely, and the loss with it."""
    rows = np.arange(len(labels))
    losses = [
        float(-np.log(softmax(temperature * scores)[rows, labels] + 1e-12).mean())
        for temperature in _TEMPERATURES
    ]
    best = int(np.argmin(losses))
    return float(_TEMPERATURES[best]), losses[best]


def _remembered(labels: Labels, classes: int, seed: int, capacity: int) -> npt.NDArray[np.int64]:
    """Return the images to remember, sorted: all, or when there are too many equally many of each class."""
    if len(labels) <= capacity:
        return np.arange(len(labels))
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))
    place = np.empty(len(labels), dtype=np.int64)
    for label in range(classes):
        members = order[labels[order] == label]
        place[members] = np.arange(len(members))
    return np.sort(order[np.argsort(place[order], kind="stable")][:capacity])


def _kernel(left: Floats, right: Floats) -> Floats:
    squared = (left**2).sum(axis=1, keepdims=True) + (right**2).sum(axis=1) - 2 * (left @ right.T)
    near: Floats = np.exp(-np.maximum(squared, 0))
    return near


METHOD = ClosedFormMethod(
    name="whitened-memory",
    shared_arrays=shared_arrays,
    private_arrays=private_arrays,
    shared_pass=shared_pass,
    private_pass=private_pass,
    fit=fit,
    needs_classes=True,
    sends_statistics=True,
    constants_chosen_on=("brain_tumor", "phantoms"),
)
