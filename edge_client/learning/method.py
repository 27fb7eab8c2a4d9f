"""The two kinds of methods: those that descend to their heads, and those that solve for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.method import Layers, SiteMethod, site_method
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


class PrivateStatistics(Protocol):
    """How a closed-form method makes its shared arrays differentially private, with one Gaussian release."""

    def __call__(
        self,
        embeddings: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
        class_embeddings: npt.NDArray[np.float32],
        terms: PrivacyTerms,
        reference: object | None,
        noise: Noise,
        /,
    ) -> tuple[NamedArrays, int]:
        """Return the shared arrays and the number of images, both (epsilon, delta) private together.

        `embeddings` (N, D) and `labels` (N,) are those of the images that count, `groups` (N,) says whose
        each is: adding or removing one group must be hidden, of which `terms.images_per_patient` bounds the
        size where the unit is a patient. `terms` has epsilon and delta of this release alone: its noise is
        that of `noise_multiplier(terms.epsilon, terms.delta)` for sensitivity 1, all numbers together.
        `reference` is the bundle's public reference set as `features.references` reads it, None where it has
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


def trainable_method(name: str) -> TrainedMethod | ClosedFormMethod:
    """Return a method that says how it trains; InvalidInputError for an unknown one, or one that does not."""
    found = site_method(name)
    if not isinstance(found, TrainedMethod | ClosedFormMethod):
        raise InvalidInputError(
            f"method {name!r} does not say how it trains; its author must give it a loss or a fit"
        )
    return found
