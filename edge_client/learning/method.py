"""The two kinds of methods: those that descend to their heads, and those that solve for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.method import Layers, SiteMethod, site_method
from fedmedclip.edge_client.learning.settings import DEFAULTS_CHOSEN_ON, TrainingSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays

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
    """One way to fit heads, without torch. Training settings do not apply to it."""

    fit: Fit


def trainable_method(name: str) -> TrainedMethod | ClosedFormMethod:
    """Return a method that says how it trains; InvalidInputError for an unknown one, or one that does not."""
    found = site_method(name)
    if not isinstance(found, TrainedMethod | ClosedFormMethod):
        raise InvalidInputError(
            f"method {name!r} does not say how it trains; its author must give it a loss or a fit"
        )
    return found
