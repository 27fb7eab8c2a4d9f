"""Layers that several methods share."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softmax

from fedmedclip.edge_client.heads.forward_passes import LEAKY_SLOPE


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over (B, features) that takes a batch of one: one image has no variance, so it is
    normalised by the running statistics, which it leaves as they are.

    Its arrays are float32 throughout: the integer that counts batches, which only a momentum of None would
    use, is not there.
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        self.num_batches_tracked = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x."""
        if self.training and len(x) == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(x)


class NormalisedAttention(nn.Module):
    """The shared head of FACMIC and FAA-CLIP: attention over the D features of each embedding.

    a = softmax(second(leaky(norm(first(e))))), adapted = a * e at unit length; (B, D) to (B, D).
    """

    def __init__(self, embedding_size: int) -> None:
        super().__init__()
        self.first = nn.Linear(embedding_size, embedding_size)
        self.norm = BatchNorm(embedding_size)
        self.second = nn.Linear(embedding_size, embedding_size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the adapted unit features (B, D); `embeddings` (B, D) stay as they are."""
        hidden = nn.functional.leaky_relu(self.norm(self.first(embeddings)), LEAKY_SLOPE)
        return normalize(softmax(self.second(hidden), dim=1) * embeddings, dim=1)


class ReversedGradient(torch.autograd.Function):
    """The identity, whose backward pass changes the gradient's sign (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        """Return x."""
        return x.view_as(x)

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        """Return minus the gradient."""
        return -gradients[0]


def no_private_head(embedding_size: int, classes: int) -> nn.Module:
    """Return a module without arrays, for methods whose head is all shared."""
    return nn.Module()
