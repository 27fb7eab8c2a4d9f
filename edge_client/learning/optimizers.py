"""The optimiser of local training, and what it remembers from round to round."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedmedclip.edge_client.learning.private_state import (
    FIRST_MOMENT,
    SECOND_MOMENT,
    STEPS,
    memory_name,
)
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.head import NamedArrays

Head = Mapping[str, Tensor]


def new_optimizer(
    shared: Head, private: Head, settings: TrainingSettings, round_number: int
) -> torch.optim.Optimizer:
    """Return the optimiser of a round: AdamW, or Adam with the weight decay inside the gradient (L2)."""
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    decay = settings.learning_rate_decay ** (round_number - 1)
    groups = [
        {"params": weights_of(shared), "lr": settings.shared_learning_rate * decay},
        {"params": weights_of(private), "lr": settings.private_learning_rate * decay},
    ]
    return kind(
        groups,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
    )


def weights_of(head: Head) -> list[Tensor]:
    """Return what the optimiser moves: all but what each round measures anew."""
    return [tensor for tensor in head.values() if tensor.requires_grad]


def restore(optimizer: torch.optim.Optimizer, shared: Head, private: Head, state: NamedArrays) -> None:
    """Give the optimiser the memory in `state`, whose arrays are named as `private_state` has them."""
    for name, weight in _named_weights(shared, private):
        steps = state[name + STEPS][0]
        if steps > 0:
            optimizer.state[weight] = {
                "step": torch.tensor(float(steps), dtype=torch.float32),
                "exp_avg": torch.tensor(state[name + FIRST_MOMENT]),
                "exp_avg_sq": torch.tensor(state[name + SECOND_MOMENT]),
            }


def memory_of(optimizer: torch.optim.Optimizer, shared: Head, private: Head) -> NamedArrays:
    """Return a copy of the optimiser's memory; zeros of a weight that it has not moved yet."""
    found: NamedArrays = {}
    for name, weight in _named_weights(shared, private):
        held = optimizer.state.get(weight)
        nothing = torch.zeros_like(weight)
        found[name + FIRST_MOMENT] = (held["exp_avg"] if held else nothing).numpy().copy()
        found[name + SECOND_MOMENT] = (held["exp_avg_sq"] if held else nothing).numpy().copy()
        found[name + STEPS] = np.array([held["step"].item() if held else 0.0], dtype=np.float32)
    return found


def _named_weights(shared: Head, private: Head) -> list[tuple[str, Tensor]]:
    return [
        (memory_name(head, name), tensor)
        for head, tensors in (("shared", shared), ("private", private))
        for name, tensor in tensors.items()
        if tensor.requires_grad
    ]
