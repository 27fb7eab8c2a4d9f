"""From embeddings to answers: probabilities, and where heads carry an assurance how far to rely on them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.assurance import ANSWERED, UNLIKE, Outcome
from fedmedclip.edge_client.heads.classification import answer
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.protocol.bundle.bundle import Bundle


@dataclass(frozen=True)
class Classification:
    """What is said of one image.

    `outcome` is "answered", or "unlike the training images": then `label` is None. `label` is the most
    probable class; `probabilities` by class name sum to 1, and stand there whatever the outcome is.
    `ensemble_weight` is the private head's share in them, from 0 to 1. `prediction_set` are the classes that
    cannot be ruled out at `Classifier.level`, in the order of the classes: all of them for an image that is
    unlike. `distance` is that from what was seen, in units of the largest that is answered. Both are None
    where the heads carry no assurance.
    """

    label: str | None
    probabilities: dict[str, float]
    ensemble_weight: float
    outcome: Outcome
    prediction_set: tuple[str, ...] | None
    distance: float | None


@dataclass(frozen=True)
class Answers:
    """Of N images: `probabilities` float32 (N, C), the private head's `weights` float32 (N,).

    `sets` bool (N, C) says which classes cannot be ruled out, `distances` float64 (N,) how far images lie
    from what was seen, more than 1 being unlike; None where nothing says.
    """

    probabilities: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    sets: npt.NDArray[np.bool_] | None
    distances: npt.NDArray[np.float64] | None

    @property
    def unlike(self) -> npt.NDArray[np.bool_]:
        """Which images are unlike the training images (N,)."""
        if self.distances is None:
            return np.zeros(len(self.probabilities), dtype=np.bool_)
        unlike: npt.NDArray[np.bool_] = self.distances > 1
        return unlike


def answers_to(heads: Heads | None, bundle: Bundle, embeddings: npt.NDArray[np.float32]) -> Answers:
    """Return the answers to embeddings, float32 (N, D), of heads, or zero-shot without any."""
    probabilities, weights = answer(heads, bundle, embeddings)
    if heads is None or heads.assurance is None:
        return Answers(probabilities, weights, None, None)
    found = Answers(
        probabilities, weights, heads.assurance.sets(probabilities), heads.assurance.distances(embeddings)
    )
    assert found.sets is not None
    # Nothing is known of what was never seen, so nothing is ruled out.
    found.sets[found.unlike] = True
    return found


def classifications(answers: Answers, class_names: tuple[str, ...]) -> Iterator[Classification]:
    """Yield what is said of each image."""
    for row, (probabilities, unlike) in enumerate(zip(answers.probabilities, answers.unlike, strict=True)):
        chosen = None if answers.sets is None else answers.sets[row]
        yield Classification(
            label=None if unlike else class_names[int(probabilities.argmax())],
            probabilities={
                name: round(float(value), 6) for name, value in zip(class_names, probabilities, strict=True)
            },
            ensemble_weight=round(float(answers.weights[row]), 6),
            outcome=UNLIKE if unlike else ANSWERED,
            prediction_set=None
            if chosen is None
            else tuple(name for name, is_in in zip(class_names, chosen, strict=True) if is_in),
            distance=None if answers.distances is None else round(float(answers.distances[row]), 6),
        )
