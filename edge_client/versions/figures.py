"""How good heads are on the validation split, and beside the ones that answer now."""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.assuring import GroupedImages
from fedmedclip.edge_client.heads.classification import predict
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.metrics import measure
from fedmedclip.edge_client.versions.records import Figures, VoterFigures
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.heads.heads_file import Judgement

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
_LEAST_PROBABILITY = 1e-12


def measured(
    heads: Heads, bundle: Bundle, validation: GroupedImages, images: Mapping[str, int]
) -> tuple[Figures, Judgement | None]:
    """Return figures, and what decides whether zero-shot answers in place of the heads.

    `images` counts those of each part. Without validation images there are no figures, and no judgement.
    """
    if len(validation.labels) == 0:
        return Figures(dict(images), "ensemble", {}), None
    found = predict(heads, bundle, validation.embeddings)
    voters = {
        "zero_shot": found.zero_shot,
        "shared": found.shared,
        "private": found.private,
        "ensemble": found.ensemble,
    }
    names = bundle.manifest.class_names
    figures = {
        name: _voter_figures(probabilities, validation.labels, names)
        for name, probabilities in voters.items()
        if probabilities is not None
    }
    judgement = Judgement(
        len(validation.labels), figures["ensemble"].balanced_accuracy, figures["zero_shot"].balanced_accuracy
    )
    answers = "zero_shot" if judgement.zero_shot_answers else "ensemble"
    return Figures(dict(images), answers, figures), judgement


def brier_scores(probabilities: Probabilities, labels: Labels) -> npt.NDArray[np.float64]:
    """Return each image's squared distance of the probabilities (N, C) from the truth (N,), 0 to 2: float64
    (N,) (Brier 1950).
    """
    truth = np.eye(probabilities.shape[1])[labels]
    scores: npt.NDArray[np.float64] = ((probabilities.astype(np.float64) - truth) ** 2).sum(axis=1)
    return scores


def digest_of(*arrays: npt.NDArray[np.generic], also: str = "") -> str:
    """Return what tells images apart from others: a digest of arrays, with their types and shapes."""
    digest = hashlib.sha256(also.encode())
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def _voter_figures(probabilities: Probabilities, labels: Labels, names: list[str]) -> VoterFigures:
    metrics = measure(probabilities, labels, names)
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return VoterFigures(
        accuracy=metrics.accuracy,
        balanced_accuracy=metrics.balanced_accuracy,
        brier=float(brier_scores(probabilities, labels).mean()),
        log_loss=float(-np.log(np.maximum(of_truth, _LEAST_PROBABILITY)).mean()),
        calibration_error=metrics.expected_calibration_error,
        sensitivity={
            name: (row[place], sum(row))
            for place, (name, row) in enumerate(zip(names, metrics.confusion, strict=True))
            if sum(row)
        },
    )
