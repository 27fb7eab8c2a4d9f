"""The heads in inference: numpy only, so that a device without torch classifies.

    embeddings -> shared head -> adapted unit features -> cosines with the class embeddings -> probabilities
                                          adapted unit features -> private head -> probabilities
    both -> ensemble

The same forward passes as the torch modules in `edge_client.methods` in evaluation mode, to 1e-5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_client.ensemble import ENTROPY, EnsembleRule, softmax
from protocol.errors import InvalidInputError
from protocol.head import HeadSpecification, NamedArrays, TensorSpecification
from protocol.seeds import derive_seed
from protocol.shared_heads import masked_linear_tensors

Floats = npt.NDArray[np.float32]

MASK_MARGIN = 0.01
"""A row is kept when its mean absolute weight exceeds its threshold by more than this."""
SMALLEST_KEPT_SHARE = 0.01
"""With fewer rows kept than this, a layer's thresholds count as 0."""
NORMALISATION_EPSILON = 1e-5
"""PyTorch's default for both layer and batch normalisation."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities of N images over C classes, float32 (N, C), rows sum to 1.

    `ensemble_weight` float32 (N,) is the private head's share in the ensemble. A method without a private
    head, or heads that hold none, give `private` None, weight 0 and the shared head's probabilities as
    `ensemble`.
    """

    zero_shot: Floats
    shared: Floats
    private: Floats | None
    ensemble: Floats
    ensemble_weight: Floats


def predict_probabilities(
    method: str,
    shared: NamedArrays,
    private: NamedArrays | None,
    embeddings: Floats,
    class_embeddings: Floats,
    logit_scale: float,
    rule: EnsembleRule = ENTROPY,
) -> Predictions:
    """Classify embeddings.

    `embeddings` float32 (N, D) as the bundle's encoder gives them, `class_embeddings` float32 (C, D) of unit
    rows, `logit_scale` the bundle's. The arrays of the heads are those of `shared_head_specification` and
    `private_head_specification`; they are not checked here (`load_heads` does).

    Raises InvalidInputError for an unknown method.
    """
    forward = _forward_passes(method)
    adapted = forward.shared(shared, embeddings)
    cosines = adapted @ class_embeddings.T
    zero_shot = softmax(logit_scale * (unit_rows(embeddings) @ class_embeddings.T))
    shared_probabilities = softmax(logit_scale * cosines)
    if not private or forward.private is None:
        no_weight = np.full_like(cosines.max(axis=1), 0)
        return Predictions(zero_shot, shared_probabilities, None, shared_probabilities, no_weight)
    logits = forward.private(private, adapted)
    ensemble, weight = rule.combine(logit_scale * cosines, logits)
    return Predictions(zero_shot, shared_probabilities, softmax(logits), ensemble, weight)


def private_head_specification(method: str, embedding_size: int, classes: int) -> HeadSpecification | None:
    """Return the arrays of a method's private head for embeddings of size D; None when it has none.

    Batch-norm statistics are arrays like the others. Raises InvalidInputError for an unknown method.
    """
    specification = _forward_passes(method).private_specification
    return specification(embedding_size, classes) if specification else None


def initial_private_head(
    method: str, embedding_size: int, classes: int, federation_seed: int, site: str
) -> NamedArrays:
    """Return the private head that a site starts from; empty for a method without one."""
    specification = private_head_specification(method, embedding_size, classes)
    if specification is None:
        return {}
    return specification.initial(derive_seed(federation_seed, purpose="private head", site=site))


def unit_rows(array: Floats) -> Floats:
    """Return a new array with each row of (N, D) scaled to unit length; zero rows stay zero."""
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    unit: Floats = array / np.maximum(lengths, np.float32(1e-12))
    return unit


def _masked_linear(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    weight = head[f"{name}.weight"]
    strength = np.abs(weight).mean(axis=1) - np.float32(MASK_MARGIN)
    kept = strength > head[f"{name}.threshold"]
    if kept.mean() < SMALLEST_KEPT_SHARE:
        kept = strength > 0
    output: Floats = x @ (weight * kept[:, None]).T + head[f"{name}.bias"]
    return output


def _feature_adaptation(head: Mapping[str, Floats], embeddings: Floats) -> Floats:
    """FAM: (N, D) to adapted unit features (N, D)."""
    hidden = _masked_linear(head, "first", embeddings)
    centred = hidden - hidden.mean(axis=1, keepdims=True)
    deviation = np.sqrt(centred.var(axis=1, keepdims=True) + np.float32(NORMALISATION_EPSILON))
    scores = _masked_linear(head, "second", np.maximum(centred / deviation, 0))
    return unit_rows(softmax(scores) * embeddings)


def _private_mlp(head: Mapping[str, Floats], adapted: Floats) -> Floats:
    """Private MLP: adapted unit features (N, D) to logits (N, C)."""
    hidden = adapted
    for layer in ("1", "2", "3"):
        hidden = _batch_norm(head, f"norm{layer}", _masked_linear(head, f"linear{layer}", hidden))
        hidden = np.maximum(hidden, 0)
    return _masked_linear(head, "classifier", hidden)


def _batch_norm(head: Mapping[str, Floats], name: str, x: Floats) -> Floats:
    deviation = np.sqrt(head[f"{name}.running_var"] + np.float32(NORMALISATION_EPSILON))
    unit: Floats = (x - head[f"{name}.running_mean"]) / deviation
    return unit * head[f"{name}.weight"] + head[f"{name}.bias"]


def _private_mlp_specification(embedding_size: int, classes: int) -> HeadSpecification:
    tensors: list[TensorSpecification] = []
    for layer in ("1", "2", "3"):
        tensors += masked_linear_tensors(f"linear{layer}", embedding_size, embedding_size)
        tensors += (
            TensorSpecification(f"norm{layer}.weight", (embedding_size,), initial_value=1.0),
            TensorSpecification(f"norm{layer}.bias", (embedding_size,)),
            TensorSpecification(f"norm{layer}.running_mean", (embedding_size,)),
            TensorSpecification(f"norm{layer}.running_var", (embedding_size,), initial_value=1.0, lowest=0.0),
        )
    return HeadSpecification((*tensors, *masked_linear_tensors("classifier", classes, embedding_size)))


@dataclass(frozen=True)
class _ForwardPasses:
    shared: Callable[[Mapping[str, Floats], Floats], Floats]
    private: Callable[[Mapping[str, Floats], Floats], Floats] | None = None
    private_specification: Callable[[int, int], HeadSpecification] | None = None


_FORWARD_PASSES = {
    "fedmedclip": _ForwardPasses(_feature_adaptation, _private_mlp, _private_mlp_specification),
}


def _forward_passes(method: str) -> _ForwardPasses:
    if method not in _FORWARD_PASSES:
        raise InvalidInputError(
            f"unknown method {method!r}; known methods: {', '.join(sorted(_FORWARD_PASSES))}"
        )
    return _FORWARD_PASSES[method]
