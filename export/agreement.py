"""How far an encoder of lower precision decides as the float32 encoder does."""

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.bundle.bundle import Agreement

Floats = npt.NDArray[np.float32]
# Of a probe on unit embeddings: small, for a class has few images, yet enough that it has one solution.
RIDGE_PENALTY = 0.01


def measure_agreement(
    reference: Floats, found: Floats, class_embeddings: Floats, labels: npt.NDArray[np.int64] | None
) -> Agreement:
    """Compare unit embeddings, both float32 (N, D), of the same images.

    `class_embeddings` is float32 (classes, D). `labels`, int64 (N,), are needed for the linear probe; without
    two classes of at least two images there is none.
    """
    cosines = np.minimum(np.sum(reference * found, axis=1, dtype=np.float64), 1.0)
    decided = [np.argmax(embeddings @ class_embeddings.T, axis=1) for embeddings in (reference, found)]
    agreement = Agreement(
        images=len(reference),
        cosine_min=_share(cosines.min()),
        cosine_mean=_share(cosines.mean()),
        zero_shot=_share(np.mean(decided[0] == decided[1])),
    )
    if labels is None or np.sum(np.bincount(labels) > 1) < 2:
        return agreement
    before, after = _probe_decisions(reference, found, labels)
    return Agreement(
        agreement.images,
        agreement.cosine_min,
        agreement.cosine_mean,
        agreement.zero_shot,
        probe=_share(np.mean(before == after)),
        probe_accuracy_fp32=_share(np.mean(before == labels)),
        probe_accuracy=_share(np.mean(after == labels)),
    )


def agreement_of_decisions(agreement: Agreement) -> float:
    """Return the lesser of the shares of equal decisions, zero-shot and, if it was measured, of the probe."""
    return min(agreement.zero_shot, agreement.zero_shot if agreement.probe is None else agreement.probe)


def _probe_decisions(
    reference: Floats, found: Floats, labels: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the class, int64 (N,), that a probe gives each image by its two embeddings.

    Two ridge regressions on one-hot labels (Hoerl and Kennard 1970), each trained on the float32 embeddings
    of every second image, decide about the images that they have not seen.
    """
    before, after = np.empty_like(labels), np.empty_like(labels)
    # Every second image of each class, whatever the order of the images.
    half = np.empty(len(labels), dtype=bool)
    for label in np.unique(labels):
        half[labels == label] = np.arange(np.sum(labels == label)) % 2 == 0
    for trained in (half, ~half):
        weights = _ridge(reference[trained], labels[trained], classes=int(labels.max()) + 1)
        for decisions, embeddings in ((before, reference), (after, found)):
            decisions[~trained] = np.argmax(_with_one(embeddings[~trained]) @ weights, axis=1)
    return before, after


def _ridge(embeddings: Floats, labels: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float64]:
    """Return float64 (D + 1, classes): weights and, last, the offset, which is not penalised."""
    inputs = _with_one(embeddings)
    penalty = np.diag([RIDGE_PENALTY] * embeddings.shape[1] + [0.0])
    wanted = np.eye(classes, dtype=np.float64)[labels]
    return np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ wanted).astype(np.float64)


def _with_one(embeddings: Floats) -> npt.NDArray[np.float64]:
    return np.column_stack((embeddings.astype(np.float64), np.ones(len(embeddings))))


def _share(value: float | np.floating) -> float:
    return round(float(value), 6)
