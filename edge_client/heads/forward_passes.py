"""The layers and shared heads of the trained methods in numpy, as they are in evaluation mode.

Each function takes a head's named arrays and float32 rows, and returns new float32 rows. The same sums as the
torch modules in `edge_client.learning.methods`, to 1e-5.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.ensemble import softmax

Floats = npt.NDArray[np.float32]

MASK_MARGIN = 0.01
"""A row is kept when its mean absolute weight exceeds its threshold by more than this."""
SMALLEST_KEPT_SHARE = 0.01
"""With fewer rows kept than this, a layer's thresholds count as 0."""
NORMALISATION_EPSILON = 1e-5
"""PyTorch's default for both layer and batch normalisation."""
LEAKY_SLOPE = 0.01
"""PyTorch's default for LeakyReLU."""
ADAPTER_SHARE = 0.2
"""How much of CLIP-Adapter's feature is the adapter's (Gao et al. 2021, alpha of its image branch)."""


def unit_rows(array: Floats) -> Floats:
    """Return a new array with each row of (N, D) scaled to unit length; zero rows stay zero."""
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    unit: Floats = array / np.maximum(lengths, np.float32(1e-12))
    return unit


def feature_adaptation(head: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """FedMedCLIP's FAM: (N, D) to adapted unit features (N, D)."""
    hidden = _masked_linear(head, "first", embeddings)
    centred = hidden - hidden.mean(axis=1, keepdims=True)
    deviation = np.sqrt(centred.var(axis=1, keepdims=True) + np.float32(NORMALISATION_EPSILON))
    scores = _masked_linear(head, "second", np.maximum(centred / deviation, 0))
    return unit_rows(softmax(scores) * embeddings)


def normalised_attention(head: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """FACMIC's and FAA-CLIP's attention: (N, D) to adapted unit features (N, D)."""
    hidden = _batch_norm(head, "norm", _linear(head, "first", embeddings))
    hidden = np.maximum(hidden, np.float32(LEAKY_SLOPE) * hidden)
    return unit_rows(softmax(_linear(head, "second", hidden)) * embeddings)


def tanh_attention(head: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """FedCLIP's attention: (N, D) to adapted unit features (N, D)."""
    scores = _linear(head, "second", np.tanh(_linear(head, "first", embeddings)))
    return unit_rows(softmax(scores) * embeddings)


def residual_adapter(head: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """CLIP-Adapter: (N, D) to unit features (N, D), a fifth of them the adapter's."""
    narrow = np.maximum(_linear(head, "down", embeddings), 0)
    adapted = np.maximum(_linear(head, "up", narrow), 0)
    share = np.float32(ADAPTER_SHARE)
    return unit_rows(share * adapted + (1 - share) * embeddings)


def linear_probe(head: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """(N, D) to one score per class (N, C), on the scale of cosines."""
    return _linear(head, "classifier", embeddings)


def private_mlp(head: Mapping[str, Floats], adapted: Floats) -> Floats:
    """FedMedCLIP's MLP: adapted unit features (N, D) to logits (N, C)."""
    hidden = adapted
    for layer in ("1", "2", "3"):
        hidden = _batch_norm(head, f"norm{layer}", _masked_linear(head, f"linear{layer}", hidden))
        hidden = np.maximum(hidden, 0)
    return _masked_linear(head, "classifier", hidden)


def _linear(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    output: Floats = x @ head[f"{name}.weight"].T + head[f"{name}.bias"]
    return output


def _masked_linear(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    weight = head[f"{name}.weight"]
    strength = np.abs(weight).mean(axis=1) - np.float32(MASK_MARGIN)
    kept = strength > head[f"{name}.threshold"]
    if kept.mean() < SMALLEST_KEPT_SHARE:
        kept = strength > 0
    output: Floats = x @ (weight * kept[:, None]).T + head[f"{name}.bias"]
    return output


def _batch_norm(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    deviation = np.sqrt(head[f"{name}.running_var"] + np.float32(NORMALISATION_EPSILON))
    unit: Floats = (x - head[f"{name}.running_mean"]) / deviation
    return unit * head[f"{name}.weight"] + head[f"{name}.bias"]
