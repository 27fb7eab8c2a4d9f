"""The layers of heads in numpy, as they are in evaluation mode.

Each function takes float32 rows, most also a head's named arrays and the layer's name in them, and returns
new float32 rows. The same sums as `edge_client.learning.layers` in torch, to 1e-5. Together they are the
`Layers` that inference gives to a method's passes.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import softmax as softmax

Floats = npt.NDArray[np.float32]

MASK_MARGIN = 0.01
"""A row is kept when its mean absolute weight exceeds its threshold by more than this."""
SMALLEST_KEPT_SHARE = 0.01
"""With fewer rows kept than this, a layer's thresholds count as 0."""
NORMALISATION_EPSILON = 1e-5
"""PyTorch's default for both layer and batch normalisation."""
LEAKY_SLOPE = 0.01
"""PyTorch's default for LeakyReLU."""


def linear(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    """(N, inputs) to (N, outputs)."""
    output: Floats = x @ head[f"{name}.weight"].T + head[f"{name}.bias"]
    return output


def masked_linear(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    """(N, inputs) to (N, outputs), with whole rows of the weight switched off by thresholds."""
    weight = head[f"{name}.weight"]
    strength = np.abs(weight).mean(axis=1) - np.float32(MASK_MARGIN)
    kept = strength > head[f"{name}.threshold"]
    if kept.mean() < SMALLEST_KEPT_SHARE:
        kept = strength > 0
    output: Floats = x @ (weight * kept[:, None]).T + head[f"{name}.bias"]
    return output


def batch_norm(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    """Normalise each column of (N, features) by its running statistics, then scale and shift it."""
    deviation = np.sqrt(head[f"{name}.running_var"] + np.float32(NORMALISATION_EPSILON))
    unit: Floats = (x - head[f"{name}.running_mean"]) / deviation
    return unit * head[f"{name}.weight"] + head[f"{name}.bias"]


def layer_norm(x: Floats) -> Floats:
    """Normalise each row of (N, features); it has no arrays of its own."""
    centred = x - x.mean(axis=1, keepdims=True)
    deviation = np.sqrt(centred.var(axis=1, keepdims=True) + np.float32(NORMALISATION_EPSILON))
    unit: Floats = centred / deviation
    return unit


def relu(x: Floats) -> Floats:
    """Return what is positive, 0 for the rest."""
    positive: Floats = np.maximum(x, 0)
    return positive


def leaky_relu(x: Floats) -> Floats:
    """Return what is positive, and a hundredth of the rest."""
    leaky: Floats = np.maximum(x, np.float32(LEAKY_SLOPE) * x)
    return leaky


def tanh(x: Floats) -> Floats:
    """Return the hyperbolic tangent."""
    return np.tanh(x)


def are_unit_rows(x: Floats) -> bool:
    """Whether each row of (N, D) has unit length, to a thousandth; true of no rows."""
    return bool(np.abs(np.linalg.norm(x, axis=1) - 1).max(initial=0) <= 1e-3)


def unit_rows(x: Floats) -> Floats:
    """Return a new array with each row of (N, D) scaled to unit length; zero rows stay zero."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit: Floats = x / np.maximum(lengths, np.float32(1e-12))
    return unit
