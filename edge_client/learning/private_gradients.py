"""Per-example gradients of a shared head, each clipped, summed: what DP-SGD adds noise to.

Source: Abadi et al., "Deep learning with differential privacy" (CCS 2016), algorithm 1. The loss of one
image is the cross entropy of the shared head's own logits: a loss over a batch, such as CLIP's, or one that
looks at the private head, such as distillation, has no gradient of one image alone. Batch norms normalise by
the running statistics, which training under privacy leaves as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import grad, vmap

from fedmedclip.edge_client.heads.method import SiteMethod
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.losses import classification_loss

Indices = npt.NDArray[np.int64]

# Gradients of so many images are held at once: 2 MB each for FedMedCLIP's shared head at D = 512.
_IMAGES_AT_ONCE = 32
# What float32's rounding may add to a norm stays below the bound.
_MARGIN = 1.0 - 1e-5
_LAYERS = TorchLayers(training=False)


@dataclass(frozen=True)
class ClippedSums:
    """Sums of gradients over units: images, or patients with several of them.

    `embeddings` (M, D), `labels` (M,) and `members` (M,), whose each image is, numbers from 0;
    `class_embeddings` (C, D). `clip_norm` bounds the length of what one unit adds to the sum.
    """

    method: SiteMethod
    embeddings: Tensor
    labels: Tensor
    members: Indices
    class_embeddings: Tensor
    logit_scale: float
    clip_norm: float
    focal_gamma: float = 0.0

    def of(self, shared: Mapping[str, Tensor], units: Indices) -> dict[str, Tensor]:
        """Return the sum over these units of the gradients of their mean losses, each clipped.

        One array for each of `shared` that requires a gradient. Adding or removing a unit moves the sum, all
        arrays together, by `clip_norm` at most.
        """
        weights = {name: tensor.detach() for name, tensor in shared.items() if tensor.requires_grad}
        fixed = {name: tensor for name, tensor in shared.items() if name not in weights}

        def loss(trained: dict[str, Tensor], embedding: Tensor, label: Tensor) -> Tensor:
            _, logits = self.method.shared_pass(
                _LAYERS, fixed | trained, embedding[None], self.class_embeddings, self.logit_scale
            )
            return classification_loss(logits, label[None], None, self.focal_gamma)

        gradient = vmap(grad(loss), in_dims=(None, 0, 0))
        sums = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        for rows, owners in self._batches(units):
            found = gradient(weights, self.embeddings[rows], self.labels[rows])
            for name, of_units in self._clipped(found, owners).items():
                sums[name] += of_units
        return sums

    def _clipped(self, gradients: dict[str, Tensor], owners: Indices) -> dict[str, Tensor]:
        """Return the sum of the units' mean gradients; `owners` (B,) says whose each row is."""
        _, places = np.unique(owners, return_inverse=True)
        counts = np.bincount(places)
        # One row per unit: the mean over its images.
        means = torch.zeros(len(counts), len(owners))
        means[places, np.arange(len(owners))] = torch.from_numpy(1.0 / counts[places]).to(means.dtype)
        # What is no number would reach the others' sums through the product.
        numbers = {name: found.nan_to_num(0.0, 0.0, 0.0).flatten(1) for name, found in gradients.items()}
        of_units = {name: means @ found for name, found in numbers.items()}
        squared = sum(
            torch.linalg.vector_norm(found, dim=1, dtype=torch.float64) ** 2 for found in of_units.values()
        )
        assert isinstance(squared, Tensor)
        factors = (_MARGIN * self.clip_norm / squared.sqrt().clamp(min=1e-30)).clamp(max=1.0)
        return {
            name: (factors.to(found.dtype) @ found).view(gradients[name].shape[1:])
            for name, found in of_units.items()
        }

    def _batches(self, units: Indices) -> Iterator[tuple[Indices, Indices]]:
        """Yield the rows of a few units at a time, with their owners; a unit's rows stay together."""
        rows = np.flatnonzero(np.isin(self.members, units))
        rows = rows[np.argsort(self.members[rows], kind="stable")]
        owners = self.members[rows]
        start = 0
        while start < len(rows):
            end = min(start + _IMAGES_AT_ONCE, len(rows))
            if end < len(rows) and owners[end] == owners[end - 1]:
                first = int(np.searchsorted(owners, owners[end]))
                end = first if first > start else int(np.searchsorted(owners, owners[end], side="right"))
            yield rows[start:end], owners[start:end]
            start = end
