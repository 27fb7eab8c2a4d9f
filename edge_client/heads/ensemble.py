"""How the shared and the private head vote: one weight per image, numpy only."""

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.heads_file import EnsembleRule

__all__ = ["ENTROPY", "ENTROPY_FLOOR", "EnsembleRule", "combine", "fit_calibrated", "softmax"]

Floats = npt.NDArray[np.float32]

ENTROPY_FLOOR = 1e-8
"""Added to each entropy (in nats), so that two certain heads weigh the same instead of 0/0."""
_WEIGHTS = np.linspace(0, 1, 51)


ENTROPY = EnsembleRule()


def combine(rule: EnsembleRule, shared_logits: Floats, private_logits: Floats) -> tuple[Floats, Floats]:
    """Return the ensemble's probabilities (N, C) and the private head's weight (N,), both float32.

    `shared_logits` and `private_logits` (N, C), the former already times the logit scale.
    """
    shared, private = _log_softmax(shared_logits), _log_softmax(private_logits)
    shared_entropy = _entropy(shared)
    if rule.kind == "calibrated":
        weight = np.full_like(shared_entropy, rule.weight)
    else:
        weight = shared_entropy / (shared_entropy + _entropy(private))
    mixed = (1 - weight)[:, None] * np.exp(shared) + weight[:, None] * np.exp(private)
    return mixed.astype(np.float32), weight.astype(np.float32)


def fit_calibrated(shared: Floats, private: Floats, labels: npt.NDArray[np.int64]) -> EnsembleRule:
    """Return the calibrated rule that makes validation labels (N,) most likely.

    `shared` and `private` are the heads' probabilities (N, C). The weight is searched on a fixed grid, so
    equal input gives an equal rule on every machine. Raises InvalidInputError when there are no images.
    """
    if len(labels) == 0:
        raise InvalidInputError("a calibrated ensemble needs validation images, there are none")
    rows = np.arange(len(labels))
    of_shared = shared[rows, labels].astype(np.float64)
    of_private = private[rows, labels].astype(np.float64)
    losses = [-np.log((1 - weight) * of_shared + weight * of_private + 1e-12).mean() for weight in _WEIGHTS]
    return EnsembleRule("calibrated", float(_WEIGHTS[np.argmin(losses)]))


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Softmax over the last axis of (N, C), computed in double precision, returned as float32."""
    return np.exp(_log_softmax(logits)).astype(np.float32)


def _log_softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    doubles = logits.astype(np.float64)
    shifted: npt.NDArray[np.float64] = doubles - doubles.max(axis=1, keepdims=True)
    total: npt.NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - total


def _entropy(log_probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    entropy: npt.NDArray[np.float64] = -(np.exp(log_probabilities) * log_probabilities).sum(axis=1)
    return entropy + ENTROPY_FLOOR
