"""What a classifier is worth on labelled images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import InvalidInputError

CALIBRATION_BINS = 15
LEAST_PROBABILITY = 1e-7
"""What a probability counts as in a log loss at least: float32 has no more digits below 1."""


@dataclass(frozen=True)
class ClassMetrics:
    """Precision and recall of one class, both 0 where undefined; `support` is its number of images."""

    precision: float
    recall: float
    support: int


@dataclass(frozen=True)
class Metrics:
    """Figures over `images` labelled images, in [0, 1] but for `log_loss`.

    `balanced_accuracy` is the mean recall and `macro_f1` the mean F1 over the classes that occur in the
    labels (for F1: or in the predictions). `confusion[i][j]` counts images of class i that were called j,
    in the order of the keys of `classes`. `log_loss` is the mean of -ln of the probability of the true class,
    which counts as 10^-7 where it is less.
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    expected_calibration_error: float
    log_loss: float
    classes: dict[str, ClassMetrics]
    confusion: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain dicts, numbers and tuples, as JSON takes them."""
        return asdict(self)


def measure(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], class_names: Sequence[str]
) -> Metrics:
    """Compare probabilities (N, C) with labels (N,) in [0, C).

    Raises InvalidInputError when there are no images, or when shapes or labels do not fit the class names.
    """
    classes = len(class_names)
    if len(labels) == 0:
        raise InvalidInputError("there are no labelled images to evaluate on")
    if probabilities.shape != (len(labels), classes) or labels.min() < 0 or labels.max() >= classes:
        raise InvalidInputError(
            f"probabilities {probabilities.shape} and labels from {labels.min()} to {labels.max()} "
            f"do not fit {len(labels)} images of {classes} classes"
        )
    predicted = probabilities.argmax(axis=1)
    confusion = np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(
        classes, classes
    )
    right, support, called = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall = _share(right, called), _share(right, support)
    f1 = _share(2 * right, support + called)
    return Metrics(
        images=len(labels),
        accuracy=float((predicted == labels).mean()),
        balanced_accuracy=float(recall[support > 0].mean()),
        macro_f1=float(f1[support + called > 0].mean()),
        expected_calibration_error=expected_calibration_error(probabilities, labels),
        log_loss=log_loss(probabilities, labels),
        classes={
            name: ClassMetrics(float(precision[i]), float(recall[i]), int(support[i]))
            for i, name in enumerate(class_names)
        },
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Divide, with 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def expected_calibration_error(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], bins: int = CALIBRATION_BINS
) -> float:
    """Return the gap between confidence and accuracy, averaged over images, in [0, 1].

    Images are put into equal-width bins by the probability of their predicted class, bin m holding
    ((m-1)/M, m/M]; each bin's gap counts by its share of the images (Guo et al. 2017, "On Calibration of
    Modern Neural Networks", equation 3).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    chosen = np.digitize(confidence, edges, right=True)
    gap_sums = np.bincount(chosen, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap_sums).sum() / len(labels))


def log_loss(probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return the mean negative natural logarithm of the probability (N, C) of the true class (N,)."""
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_truth, LEAST_PROBABILITY)).mean())
