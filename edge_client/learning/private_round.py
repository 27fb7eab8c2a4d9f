"""One round of local training whose shared head is differentially private, and whose private head is not.

The shared head descends by noisy sums of clipped gradients (DP-SGD), sees no private head, and keeps no
statistics of batch norms. The private head learns as ever, on the shared head that the round began with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.method import TrainedMethod
from fedmedclip.edge_client.learning.optimizers import new_optimizer, weights_of
from fedmedclip.edge_client.learning.private_gradients import ClippedSums
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import Floats, Labels, arrays_of, fixed_threads, tensors_of
from fedmedclip.edge_client.privacy.noise import Noise
from fedmedclip.edge_client.privacy.units import Indices
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification


@dataclass(frozen=True)
class PrivateSteps:
    """How a round's noisy steps are taken. `members` (M,) says whose each training image is, from 0.

    Each unit takes part in a step with probability `sampling_rate`; the noise has standard deviation
    `noise_multiplier` times `clip_norm`. `images` stands for the number of images, which itself is not to be
    told: it is public, or noisy.
    """

    members: Indices
    sampling_rate: float
    clip_norm: float
    noise_multiplier: float
    images: int
    noise: Noise


def train_shared_privately(
    method: TrainedMethod,
    shared: NamedArrays,
    embeddings: Floats,
    labels: Labels,
    class_embeddings: Floats,
    logit_scale: float,
    settings: TrainingSettings,
    how: PrivateSteps,
    *,
    round_number: int,
    target: Floats | None = None,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> NamedArrays:
    """Return the shared head after a round of noisy steps.

    Arguments as of `train_round`, for the images that count. Of the settings those of the optimiser count, of
    the steps, the focal loss and the proximal term. An adapting method's batch norms take the statistics of
    `target`, which is public; without it they keep those they have. Raises HeadError when training diverges.
    """
    classes, size = class_embeddings.shape
    specification = shared_head_specification(method.name, size, classes)
    with fixed_threads(threads):
        head = tensors_of(shared, specification)
        captions = torch.tensor(class_embeddings)
        if method.adapts and target is not None:
            with torch.no_grad():
                method.shared_pass(TorchLayers(momentum=1.0), head, torch.tensor(target), captions, 1.0)
        sums = ClippedSums(
            method,
            torch.tensor(method.taken(embeddings)),
            torch.tensor(labels),
            how.members,
            captions,
            logit_scale,
            how.clip_norm,
            settings.focal_gamma,
        )
        start = {name: head[name].detach().clone() for name in head if head[name].requires_grad}
        optimizer = new_optimizer(head, {}, settings, round_number)
        units = int(how.members.max()) + 1 if len(how.members) else 0
        steps = settings.steps_at(how.sampling_rate)
        expected = how.sampling_rate * max(1, how.images)
        for step in range(steps):
            chosen = np.flatnonzero(how.noise.random(units) < how.sampling_rate)
            for name, found in sums.of(head, chosen).items():
                drawn = how.noise.normal(0.0, how.noise_multiplier * how.clip_norm, tuple(found.shape))
                noisy = (found + torch.from_numpy(drawn).to(found.dtype)) / expected
                drift = head[name].detach() - start[name]
                head[name].grad = noisy + settings.proximal_weight * drift
            optimizer.step()
            if progress:
                progress(step + 1, steps)
        assert all(weight.grad is not None for weight in weights_of(head))
        return arrays_of(head, specification)
