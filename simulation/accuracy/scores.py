"""What probabilities are worth against labels, and the curves behind the calibration and decision plots."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.metrics import measure

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

RELIABILITY_BINS = 10
THRESHOLDS = np.round(np.arange(0.02, 0.981, 0.02), 2)


class Scores(msgspec.Struct, frozen=True):
    """Figures in [0, 1]. `auroc` is None when every image has the same class.

    `ece` is the expected calibration error; see `edge_client.heads.metrics` for it and for the first three.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    auroc: float | None
    ece: float
    confusion: tuple[tuple[int, ...], ...]
    images: int


class ReliabilityBin(msgspec.Struct, frozen=True):
    """The images whose confidence falls into a bin: how many, and what they say and are on average."""

    images: int
    confidence: float
    accuracy: float


def score(probabilities: Probabilities, labels: Labels, class_names: Sequence[str]) -> Scores:
    """Return the scores of probabilities (N, C). Raises InvalidInputError as `measure` does."""
    found = measure(probabilities, labels, class_names)
    return Scores(
        found.accuracy,
        found.balanced_accuracy,
        found.macro_f1,
        macro_auroc(probabilities, labels),
        found.expected_calibration_error,
        found.confusion,
        found.images,
    )


def macro_auroc(probabilities: Probabilities, labels: Labels) -> float | None:
    """Return the area under the ROC curve of each class against the rest, averaged over the classes.

    Classes that no image has, or that all images have, have no curve and are left out; None when none is
    left. (Hand and Till 2001 discuss the alternatives; this is the usual macro one-vs-rest.)
    """
    areas = [
        _auroc(probabilities[:, label], labels == label)
        for label in range(probabilities.shape[1])
        if 0 < int((labels == label).sum()) < len(labels)
    ]
    return float(np.mean(areas)) if areas else None


def _auroc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> float:
    """Return the share of pairs of a positive and another image that the scores order rightly, a tie half.

    That is the area under the ROC curve (Hanley and McNeil 1982).
    """
    _, level = np.unique(scores, return_inverse=True)
    levels = int(level.max()) + 1
    positives = np.bincount(level[positive], minlength=levels)
    others = np.bincount(level[~positive], minlength=levels)
    below = np.cumsum(others) - others
    # Twice the pairs: halves would not be whole numbers.
    pairs = int((positives * (2 * below + others)).sum())
    return pairs / (2 * int(positives.sum()) * int(others.sum()))


def reliability(probabilities: Probabilities, labels: Labels) -> list[ReliabilityBin]:
    """Return the occupied bins of confidence, from low to high (Guo et al. 2017, figure 1)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, RELIABILITY_BINS + 1)[1:-1], right=True)
    return [
        ReliabilityBin(
            int((bins == number).sum()),
            float(confidence[bins == number].mean()),
            float(correct[bins == number].mean()),
        )
        for number in np.unique(bins)
    ]


def net_benefit(risk: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]) -> list[float]:
    """Return the net benefit of acting where the risk reaches each of `THRESHOLDS`.

    TP / N - FP / N * t / (1 - t): true positives, less false positives at the exchange rate that a threshold
    probability of t implies (Vickers and Elkin 2006, "Decision curve analysis").
    """
    acts = risk[None, :] >= THRESHOLDS[:, None]
    true = (acts & positive).sum(axis=1) / len(positive)
    false = (acts & ~positive).sum(axis=1) / len(positive)
    return [float(value) for value in true - false * THRESHOLDS / (1 - THRESHOLDS)]


def negative_class(class_names: Sequence[str]) -> int | None:
    """Return the class that means "nothing found", by its name; None when no name says so."""
    for index, name in enumerate(class_names):
        words = name.lower().replace("-", "_").split("_")
        if words[0] in ("no", "normal", "healthy", "negative"):
            return index
    return None
