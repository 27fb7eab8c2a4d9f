"""Prediction sets: the classes that cannot be ruled out at a stated level, by split conformal prediction.

A score says how badly a class fits the probabilities of an image. A class is in the set where its score is no
worse than that of all but a few calibration images' own classes; nothing is assumed of the classifier.

`lac`: 1 - p(class), the smallest sets on average (Sadinle, Lei and Wasserman 2019, "Least ambiguous
set-valued classifiers with bounded error levels"). `aps`: the sum of the probabilities from the most probable
class to this one, which is larger where images are hard (Romano, Sesia and Candes 2020, "Classification with
valid and adaptive coverage"), without their random draw: nobody's answer depends on a draw, and sets are a
little larger than need be.

Images of one patient are not exchangeable, patients are. So each group of calibration images counts as one,
its images share its weight, and one more group stands for what is to come, with the worst score (Lee, Barber
and Willett 2023, "Distribution-free inference with hierarchical data"; Dunn, Wasserman and Ramdas 2023 draw
one image of each group instead). Where each image is its own group, that is the usual quantile,
ceil((n + 1) * level) / n. What is guaranteed: of an image, drawn at random, of a *new* patient whose images
come about as those did, the set holds the class with probability `level` at least, over the draw of both.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Kind = Literal["lac", "aps"]

_DECIMALS = 1e6
_ROUNDING = 1e-9


def scores(kind: Kind, probabilities: Floats) -> Doubles:
    """Return how badly each class fits, float64 (N, C), from 0 to 1, of probabilities float32 (N, C)."""
    doubles = probabilities.astype(np.float64)
    if kind == "lac":
        fitting: Doubles = 1 - doubles
        return fitting
    order = np.argsort(-doubles, axis=1, kind="stable")
    summed = np.cumsum(np.take_along_axis(doubles, order, axis=1), axis=1)
    found = np.empty_like(doubles)
    np.put_along_axis(found, order, summed, axis=1)
    return found


def group_quantile(values: Doubles, groups: Labels, level: float) -> float | None:
    """Return what the value of an image of a new group exceeds with probability 1 - `level` at most.

    `values` float64 (N,), `groups` int64 (N,) equal for images of one group. It is rounded upwards to six
    decimals. None where the groups are too few to say: fewer than level / (1 - level).
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(1 / sizes[group[order]]) / (len(sizes) + 1)
    place = int(np.searchsorted(reached, level - _ROUNDING))
    if place == len(order):
        return None
    return float(np.ceil(values[order[place]] * _DECIMALS) / _DECIMALS)


def fit_thresholds(
    kind: Kind, probabilities: Floats, labels: Labels, groups: Labels, level: float, class_conditional: bool
) -> tuple[float | None, ...]:
    """Return the worst score that each of C classes is in a set with; None: it is in every set.

    `probabilities` float32 (N, C) of calibration images, `labels` and `groups` int64 (N,). With
    `class_conditional` each class has its own threshold, of its own images, and its own guarantee (Vovk 2012,
    "Conditional validity of inductive conformal predictors"); without, all have that of all images.
    """
    classes = probabilities.shape[1]
    own = scores(kind, probabilities)[np.arange(len(labels)), labels]
    among = [labels == label for label in range(classes)]
    if not class_conditional:
        among = [np.ones(len(labels), dtype=np.bool_)] * classes
    return tuple(group_quantile(own[chosen], groups[chosen], level) for chosen in among)


def prediction_sets(
    kind: Kind, thresholds: tuple[float | None, ...], probabilities: Floats
) -> npt.NDArray[np.bool_]:
    """Return which classes are in the set of each image, bool (N, C).

    The most probable class always is: a set without any would be no answer. That makes sets larger only, so
    the level holds all the same.
    """
    limits = np.array([np.inf if limit is None else limit for limit in thresholds])
    chosen: npt.NDArray[np.bool_] = scores(kind, probabilities) <= limits
    chosen[np.arange(len(chosen)), probabilities.argmax(axis=1)] = True
    return chosen
