"""The layers of heads in torch: the `Layers` that training gives to a method's passes and loss."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fedmedclip.edge_client.heads.layers import LEAKY_SLOPE, NORMALISATION_EPSILON
from fedmedclip.edge_client.learning.masked_linear import masked_linear
from fedmedclip.edge_client.learning.method import Tensors


@dataclass(frozen=True)
class TorchLayers:
    """Layers whose arrays are tensors; `edge_client.heads.method.Layers` says what each is.

    In `training` batch norms use the batch's own statistics and move the running ones towards them by
    `momentum`, and masked layers may reset their thresholds: both in place.
    """

    training: bool = True
    momentum: float = 0.1

    def linear(self, head: Tensors, name: str, x: Tensor, /) -> Tensor:
        """(B, inputs) to (B, outputs)."""
        return functional.linear(x, head[f"{name}.weight"], head[f"{name}.bias"])

    def masked_linear(self, head: Tensors, name: str, x: Tensor, /) -> Tensor:
        """(B, inputs) to (B, outputs), with whole rows of the weight switched off by learned thresholds."""
        weight, bias, threshold = (head[f"{name}.{part}"] for part in ("weight", "bias", "threshold"))
        return masked_linear(x, weight, bias, threshold, self.training)

    def batch_norm(self, head: Tensors, name: str, x: Tensor, /) -> Tensor:
        """Normalise each column of (B, features).

        One image has no variance: a batch of one is normalised by the running statistics, which it leaves as
        they are.
        """
        return functional.batch_norm(
            x,
            head[f"{name}.running_mean"],
            head[f"{name}.running_var"],
            head[f"{name}.weight"],
            head[f"{name}.bias"],
            self.training and len(x) > 1,
            self.momentum,
            NORMALISATION_EPSILON,
        )

    def layer_norm(self, x: Tensor, /) -> Tensor:
        """Normalise each row of (B, features)."""
        return functional.layer_norm(x, x.shape[1:], eps=NORMALISATION_EPSILON)

    def relu(self, x: Tensor, /) -> Tensor:
        """Return what is positive, 0 for the rest."""
        return functional.relu(x)

    def leaky_relu(self, x: Tensor, /) -> Tensor:
        """Return what is positive, and a hundredth of the rest."""
        return functional.leaky_relu(x, LEAKY_SLOPE)

    def tanh(self, x: Tensor, /) -> Tensor:
        """Return the hyperbolic tangent."""
        return torch.tanh(x)

    def softmax(self, x: Tensor, /) -> Tensor:
        """Softmax of each row."""
        return functional.softmax(x, dim=1)

    def unit_rows(self, x: Tensor, /) -> Tensor:
        """Scale each row to unit length."""
        return functional.normalize(x, dim=1)


class _ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def reverse_gradient(x: Tensor) -> Tensor:
    """Return x, whose gradient has its sign changed on the way back (Ganin and Lempitsky 2015)."""
    reversed_: Tensor = _ReversedGradient.apply(x)  # type: ignore[no-untyped-call]
    return reversed_
