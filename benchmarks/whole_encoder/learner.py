"""What a site trains, and what travels of it: one interface for encoders and for prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Arrays = dict[str, Tensor]
"""Tensors float32 by name: all that travels."""
Indices = npt.NDArray[np.int64]
Predicted = npt.NDArray[np.int64]

BATCH_SIZE = 32
"""Of FedMedCLIP's baselines (DN-FedAVG-1.py, line 29) and of CoOp (configs/trainers/CoOp/rn50.yaml)."""


@dataclass(frozen=True)
class Turn:
    """A site's turn in a round: int64 rows of its training images, the round from 1, a seed of its own."""

    images: Indices
    round_number: int
    seed: int

    def batches(self) -> list[Tensor]:
        """Return the images once, mixed, in batches of 32; one image alone is no batch, for want of pairs."""
        generator = torch.Generator().manual_seed(self.seed)
        mixed = torch.from_numpy(self.images)[torch.randperm(len(self.images), generator=generator)]
        return [batch for batch in torch.split(mixed, BATCH_SIZE) if len(batch) > 1]


@dataclass
class Kept:
    """What a site keeps from one round to the next: its optimiser's state, and what it made last."""

    optimiser: dict[str, Any] = field(default_factory=dict)
    previous: Arrays = field(default_factory=dict)


class Learner(Protocol):
    """Trains at one site at a time. What it gives shares no memory with what it was given."""

    def initial(self, seed: int) -> Arrays:
        """Return what the first round begins with."""

    def train(self, shared: Arrays, kept: Kept, turn: Turn) -> tuple[Arrays, Kept]:
        """Return what a site makes of the shared arrays in its turn, and what it keeps."""

    def predict(self, shared: Arrays, images: Indices | None) -> Predicted:
        """Return the classes, int64, of these images, or of the global test (None)."""


def copied(arrays: Mapping[str, Tensor]) -> Arrays:
    """Return the tensors in memory of their own."""
    return {name: array.detach().clone() for name, array in arrays.items()}


def mean_of(arrays: list[Arrays], weights: list[float]) -> Arrays:
    """Return the weighted mean by name (FedAvg, McMahan et al. 2017, algorithm 1); weights add up to 1.

    It is summed in float64, in the order given.
    """
    return {
        name: sum(
            (weight * one[name].double() for weight, one in zip(weights, arrays, strict=True)),
            start=torch.zeros((), dtype=torch.float64, device=array.device),
        ).to(array.dtype)
        for name, array in arrays[0].items()
    }
