"""The masked linear layer: whole rows of the weight are switched off by learned thresholds."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fedmedclip.edge_client.heads.layers import MASK_MARGIN, SMALLEST_KEPT_SHARE


class LongTailedStep(torch.autograd.Function):
    """Heaviside step whose backward pass is the long-tailed estimator.

    Forward: 1 where x > 0, else 0. Backward: the incoming gradient times 2 - 4|x| for |x| <= 0.4, 0.4 for
    0.4 < |x| <= 1, 0 beyond (Liu et al. 2020, "Dynamic Sparse Training", equation 5).

    FedMedCLIP's published code passes the gradient only where |x| > 1. Mean absolute weights are a few
    hundredths, so its thresholds never receive a gradient and its mask never changes; with the estimator
    above they do.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        """Step of x, of any shape, as float."""
        return (x > 0).to(x.dtype)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Keep x for the way back; apart from `forward`, as gradients of single images need it."""
        context.save_for_backward(*inputs)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Tensor:
        """Gradient with respect to x."""
        (x,) = context.saved_tensors
        distance = x.abs()
        near = 2 - 4 * distance
        tail = torch.full_like(x, 0.4)
        estimate = torch.where(distance <= 0.4, near, tail).masked_fill(distance > 1, 0.0)
        product: Tensor = gradients[0] * estimate
        return product


def _step(x: Tensor) -> Tensor:
    mask: Tensor = LongTailedStep.apply(x)  # type: ignore[no-untyped-call]
    return mask


def masked_linear(x: Tensor, weight: Tensor, bias: Tensor, threshold: Tensor, training: bool) -> Tensor:
    """y = (W with dropped rows zeroed) x + b; float32 (B, inputs) to (B, outputs).

    Row o is kept when mean_i |W_oi| - r_o exceeds 0.01, r the learned thresholds. The step's argument is the
    distance from that 0.01, so the estimator is centred on the point where the mask changes. The mask's
    gradient reaches both r and W. When less than 1 % of the rows are kept, the thresholds are reset to 0: in
    training for good, in inference for that pass.

    First weights (`protocol.heads.layers`) have a mean size of 0.5/sqrt(inputs), which keeps every row up to
    about 2500 inputs.
    """
    mask = _mask(weight, threshold, training)
    return functional.linear(x, weight * mask.unsqueeze(1), bias)


def _mask(weight: Tensor, threshold: Tensor, training: bool) -> Tensor:
    strength = weight.abs().mean(dim=1) - MASK_MARGIN
    mask = _step(strength - threshold)
    if mask.mean() >= SMALLEST_KEPT_SHARE:
        return mask
    if training:
        with torch.no_grad():
            threshold.zero_()
        return _step(strength - threshold)
    return (strength > 0).to(strength.dtype)
