"""The kinds of methods: they descend to their heads, solve for them, or only say what images are like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.method import Layers, SiteMethod, site_method
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.settings import DEFAULTS_CHOSEN_ON, TrainingSettings
from fedmedclip.edge_client.privacy.noise import Noise
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.messages import PrivacyTerms

if TYPE_CHECKING:
    from torch import Tensor

Tensors = Mapping[str, "Tensor"]
"""A head in training, by the names of its specification."""
Terms = dict[str, "Tensor"]
"""The named parts of a loss, scalars."""
Loss = Callable[[Layers, Tensors, Tensors, "Batch", TrainingSettings], Terms]
Fit = Callable[
    [
        NamedArrays,
        npt.NDArray[np.float32],
        npt.NDArray[np.int64],
        npt.NDArray[np.float32],
        float,
        int,
    ],
    tuple[NamedArrays, NamedArrays, float],
]
"""(shared head, embeddings (N, D), labels (N,), class embeddings (C, D), logit scale, seed)
to shared head, private head and loss."""
Statistics = Callable[[NamedArrays, OwnImages, npt.NDArray[np.float32], float, int], NamedArrays]
"""(shared head, images, class embeddings (C, D), logit scale, seed) to the images' shared arrays."""
Adapt = Callable[[NamedArrays, OwnImages, npt.NDArray[np.float32], float, int], "Adapted"]
"""(shared head, images, class embeddings (C, D), logit scale, seed) to the private head, and what it is."""


@dataclass(frozen=True)
class Adapted:
    """A site's private head, and what can be said of it.

    `kept` names the head that answers, `reason` says why. `shares` (C,) are the classes' among the images.
    `separation` is how far they lie apart here, in units of how far they do in the federation; `agreement`
    with zero-shot and with the federation's head as it came, Cohen's kappa; None where there is no federation
    or no image. `offset` is how far the scanner moves embeddings; `labels` counts the labelled images.
    """

    private: NamedArrays
    kept: str
    reason: str
    shares: npt.NDArray[np.float64]
    labels: int
    separation: float | None = None
    offset: float | None = None
    agreement_with_zero_shot: float | None = None
    agreement_with_federation: float | None = None


class PrivateStatistics(Protocol):
    """How a closed-form method makes its shared arrays differentially private, with one Gaussian release."""

    def __call__(
        self,
        embeddings: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
        class_embeddings: npt.NDArray[np.float32],
        logit_scale: float,
        terms: PrivacyTerms,
        reference: npt.NDArray[np.float32] | None,
        noise: Noise,
        /,
    ) -> tuple[NamedArrays, int]:
        """Return the shared arrays and the number of images, both (epsilon, delta) private together.

        `embeddings` (N, D) and `labels` (N,) are those of the images that count, `groups` (N,) says whose
        each is: adding or removing one group must be hidden, of which `terms.images_per_patient` bounds the
        size where the unit is a patient. `terms` has epsilon and delta of this release alone: its noise is
        that of `noise_multiplier(terms.epsilon, terms.delta)` for sensitivity 1, all numbers together.
        `reference` float32 (n, D) are the embeddings of the bundle's public reference set, None where it has
        none. Every random number is drawn from `noise`, in the same order each time.
        """


@dataclass(frozen=True)
class Batch:
    """One batch of image-caption pairs; a caption is the class embedding of its image's label.

    `embeddings` float32 (B, D), `labels` int64 (B,), `class_embeddings` float32 (C, D) of unit rows,
    `logit_scale` the frozen model's own factor on cosines. `weights` (B,) says how much each image counts
    (None: all the same), `target` (B', D) are embeddings of the domain to adapt to, of no class (None: none).
    """

    embeddings: Tensor
    labels: Tensor
    class_embeddings: Tensor
    logit_scale: float
    weights: Tensor | None = None
    target: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class TrainedMethod(SiteMethod):
    """One way to train heads, with torch.

    `loss(layers, shared, private, batch, settings)` returns named scalar terms; their sum is what training
    minimises. Both heads are tensors by the names of their specifications; all but the `measured` ones are
    trained. Batch norms are settled at the end of a round by running `shared_pass` and `private_pass`.
    Whoever trains with the default settings has them from where these were chosen.
    """

    loss: Loss
    constants_chosen_on: tuple[str, ...] = DEFAULTS_CHOSEN_ON


@dataclass(frozen=True, kw_only=True)
class ClosedFormMethod(SiteMethod):
    """One way to fit heads, without torch. Training settings do not apply to it.

    Under `[privacy]` its shared arrays are those of `private_statistics`, and only the private head is that
    of `fit`; a method without it sends nothing there.
    """

    fit: Fit
    private_statistics: PrivateStatistics | None = None


@dataclass(frozen=True, kw_only=True)
class StatisticsMethod(SiteMethod):
    """One way to say of images what others need, once, and to answer with what all have said. No torch.

    `statistics` are a site's shared arrays. The private head is made anew, by `adapt`, from every version of
    the shared head and a site's own images (`edge_client.learning.version_head`): they may have no labels,
    and the site may never have sent anything.
    """

    statistics: Statistics
    adapt: Adapt
    private_statistics: PrivateStatistics | None = None
    sends_statistics: bool = True


Trainable = TrainedMethod | ClosedFormMethod | StatisticsMethod


def trainable_method(name: str) -> Trainable:
    """Return a method that says how it trains; InvalidInputError for an unknown one, or one that does not."""
    found = site_method(name)
    if not isinstance(found, Trainable):
        raise InvalidInputError(
            f"method {name!r} does not say how it trains; its author must give it a loss or a fit"
        )
    return found
