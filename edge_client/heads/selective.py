"""What prediction sets and withheld answers are worth on labelled images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import InvalidInputError

Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SelectiveFigures:
    """Figures over `images` labelled images; shares are from 0 to 1, None of no image.

    `coverage` is how often a set holds the true class, which was to be `level`; `coverage_by_class` the same
    for the images of each class. `mean_set_size` is in classes. An image that is unlike the training images
    has all classes in its set, so these are also given `of_answered` images alone, which are the share
    `answered`; `accuracy_of_answered` is how often their most probable class is the true one.

    An error is an image whose most probable class is wrong. It counts as caught when the image got no answer,
    or more than one class: `errors_caught` is their share of the `errors`; `right_questioned` the share of
    the other images to which the same happened, which is what that costs. `aurc` is `area_under_risk`.
    """

    images: int
    level: float
    coverage: float
    coverage_by_class: dict[str, float | None]
    mean_set_size: float
    answered: float
    coverage_of_answered: float | None
    mean_set_size_of_answered: float | None
    accuracy_of_answered: float | None
    errors: int
    errors_caught: float | None
    right_questioned: float | None
    aurc: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain dicts and numbers, as JSON takes them."""
        return asdict(self)


def measure_selection(
    probabilities: npt.NDArray[np.float32],
    labels: Labels,
    sets: Flags,
    unlike: Flags,
    level: float,
    class_names: Sequence[str],
) -> SelectiveFigures:
    """Compare what was said of N images with their labels (N,).

    `probabilities` float32 (N, C), `sets` bool (N, C), `unlike` bool (N,) which of them got no answer. Raises
    InvalidInputError when there are no images.
    """
    if len(labels) == 0:
        raise InvalidInputError("there are no labelled images to evaluate on")
    held, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    wrong, answered = probabilities.argmax(axis=1) != labels, ~unlike
    questioned = unlike | (sizes > 1)
    return SelectiveFigures(
        images=len(labels),
        level=level,
        coverage=float(held.mean()),
        coverage_by_class={name: _mean(held[labels == label]) for label, name in enumerate(class_names)},
        mean_set_size=float(sizes.mean()),
        answered=float(answered.mean()),
        coverage_of_answered=_mean(held[answered]),
        mean_set_size_of_answered=_mean(sizes[answered]),
        accuracy_of_answered=_mean(~wrong[answered]),
        errors=int(wrong.sum()),
        errors_caught=_mean(questioned[wrong]),
        right_questioned=_mean(questioned[~wrong]),
        aurc=area_under_risk(probabilities.max(axis=1), wrong),
    )


def risk_by_coverage(confidence: npt.NDArray[np.floating[Any]], wrong: Flags) -> npt.NDArray[np.float64]:
    """Return the share of errors among the k most confident of n images, for k = 1 to n, float64 (n,).

    Images of equal confidence (n,) come in any order: each counts with the mean error of them all.
    """
    order = np.argsort(-confidence, kind="stable")
    _, tie, sizes = np.unique(-confidence[order], return_inverse=True, return_counts=True)
    errors = np.bincount(tie, weights=wrong[order]) / sizes
    risks: npt.NDArray[np.float64] = np.cumsum(errors[tie]) / np.arange(1, len(wrong) + 1)
    return risks


def area_under_risk(confidence: npt.NDArray[np.floating[Any]], wrong: Flags) -> float:
    """Return the area under the risk-coverage curve, from 0 to 1; lower is better.

    It is the mean over k = 1 to n of the share of errors among the k most confident of n images, the
    confidence being the probability of the most probable class (Geifman, Uziel and El-Yaniv 2019,
    "Bias-reduced uncertainty estimation for deep neural classifiers", section 2).
    """
    return float(risk_by_coverage(confidence, wrong).mean())


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
