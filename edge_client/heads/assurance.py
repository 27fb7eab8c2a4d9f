"""What stands beside heads about how far their answers are to be relied on, and what it says of an image."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.conformal import prediction_sets
from fedmedclip.edge_client.heads.novelty import Floats, Seen
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.assurance import AssuranceMetadata
from fedmedclip.protocol.heads.head import NamedArrays

Outcome = Literal["answered", "unlike the training images"]
ANSWERED: Outcome = "answered"
UNLIKE: Outcome = "unlike the training images"


class AssuranceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How prediction sets are made, and how often an image like the site's own may be called unlike them.

    `level` is how often a set holds the true class; `kind` the score (`edge_client.heads.conformal`);
    `class_conditional` makes the level hold for each class, which takes images enough of each; at most
    `false_alarms` of the images that are like the site's own get no answer, where its images can tell.

    Raises InvalidInputError for numbers out of range.
    """

    level: Annotated[float, msgspec.Meta(ge=0.5, le=0.999)] = 0.9
    kind: Literal["lac", "aps"] = "lac"
    class_conditional: bool = False
    false_alarms: Annotated[float, msgspec.Meta(gt=0, le=0.1)] = 0.01

    def __post_init__(self) -> None:
        # Options of a command come here unchecked, and nan passes its bounds there.
        if not 0.5 <= self.level <= 0.999:
            raise InvalidInputError(f"the level is {self.level:g}, it must be from 0.5 to 0.999")
        if not 0 < self.false_alarms <= 0.1:
            raise InvalidInputError(
                f"the share of false alarms is {self.false_alarms:g}, it must be above 0 and at most 0.1"
            )


DEFAULT_SETTINGS = AssuranceSettings()


@dataclass(frozen=True)
class Assurance:
    """The metadata and the float32 `arrays` of a heads file that belong together.

    For whoever watches what comes in: `arrays["mean"]` (D,), `arrays["vectors"]` (D, k) and
    `arrays["class_shares"]` (C,), with `metadata.reference`.
    """

    metadata: AssuranceMetadata
    arrays: NamedArrays

    def sets(self, probabilities: Floats) -> npt.NDArray[np.bool_]:
        """Return which classes cannot be ruled out, bool (N, C), by what counts as the answer, (N, C)."""
        return prediction_sets(self.metadata.kind, tuple(self.metadata.thresholds), probabilities)

    def distances(self, embeddings: Floats) -> npt.NDArray[np.float64] | None:
        """Return how far embeddings, float32 (N, D), lie from what was seen, in units of the threshold.

        float64 (N,): more than 1 is unlike the training images. None where nothing says.
        """
        novelty = self.metadata.novelty
        if novelty is None:
            return None
        seen = Seen(self.arrays["means"], self.arrays["root"], novelty.elsewhere)
        return seen.distances(embeddings) / novelty.threshold
