"""The heads in inference: numpy only, so that a device without torch classifies.

    embeddings -> shared head -> features, and logits (most methods: cosines with the class embeddings)
                                 features -> private head -> logits
    both -> ensemble

The same forward passes as the torch modules in `edge_client.learning.methods` in evaluation mode, to 1e-5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads import forward_passes, private_heads, whitened_memory
from fedmedclip.edge_client.heads.ensemble import ENTROPY, EnsembleRule, softmax
from fedmedclip.edge_client.heads.forward_passes import unit_rows
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.seeds import derive_seed

Floats = npt.NDArray[np.float32]


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
    rule: EnsembleRule | None = None,
) -> Predictions:
    """Classify embeddings.

    `embeddings` float32 (N, D) as the bundle's encoder gives them, `class_embeddings` float32 (C, D) of unit
    rows, `logit_scale` the bundle's. The arrays of the heads are those of `shared_head_specification` and
    `private_head_specification`; they are not checked here (`load_heads` does). Without a `rule` the heads
    vote as the method has it.

    Raises InvalidInputError for an unknown method.
    """
    forward = _forward_passes(method)
    features, shared_logits = forward.shared(shared, embeddings, class_embeddings, logit_scale)
    zero_shot = softmax(logit_scale * (unit_rows(embeddings) @ class_embeddings.T))
    shared_probabilities = softmax(shared_logits)
    if not private or forward.private is None:
        no_weight = np.full_like(shared_logits.max(axis=1), 0)
        return Predictions(zero_shot, shared_probabilities, None, shared_probabilities, no_weight)
    logits = forward.private(private, shared, features)
    ensemble, weight = (rule or forward.ensemble).combine(shared_logits, logits)
    return Predictions(zero_shot, shared_probabilities, softmax(logits), ensemble, weight)


def ensemble_of(method: str) -> EnsembleRule:
    """Return how the heads of a method vote; raises InvalidInputError for an unknown method."""
    return _forward_passes(method).ensemble


def private_head_specification(method: str, embedding_size: int, classes: int) -> HeadSpecification | None:
    """Return the arrays of a method's private head for embeddings of size D; None when it has none.

    It may hold what only training uses, such as FAA-CLIP's discriminator. Batch-norm statistics are arrays
    like the others. Raises InvalidInputError for an unknown method.
    """
    _forward_passes(method)
    specification = private_heads.SPECIFICATIONS.get(method)
    return specification(embedding_size, classes) if specification else None


def initial_private_head(
    method: str, embedding_size: int, classes: int, federation_seed: int, site: str
) -> NamedArrays:
    """Return the private head that a site starts from; empty for a method without one."""
    specification = private_head_specification(method, embedding_size, classes)
    if specification is None:
        return {}
    return specification.initial(derive_seed(federation_seed, purpose="private head", site=site))


SharedPass = Callable[[Mapping[str, Floats], Floats, Floats, float], tuple[Floats, Floats]]
"""(shared head, embeddings (N, D), class embeddings (C, D), logit scale) to features and logits (N, C)."""
PrivatePass = Callable[[Mapping[str, Floats], Mapping[str, Floats], Floats], Floats]
"""(private head, shared head, features (N, D)) to logits (N, C)."""


@dataclass(frozen=True)
class _ForwardPasses:
    shared: SharedPass
    private: PrivatePass | None = None
    ensemble: EnsembleRule = ENTROPY


def _by_cosines(adapt: Callable[[Mapping[str, Floats], Floats], Floats]) -> SharedPass:
    def shared(
        head: Mapping[str, Floats], embeddings: Floats, class_embeddings: Floats, logit_scale: float
    ) -> tuple[Floats, Floats]:
        adapted = adapt(head, embeddings)
        return adapted, logit_scale * (adapted @ class_embeddings.T)

    return shared


def _linear_probe(
    head: Mapping[str, Floats], embeddings: Floats, class_embeddings: Floats, logit_scale: float
) -> tuple[Floats, Floats]:
    return embeddings, logit_scale * forward_passes.linear_probe(head, embeddings)


def _private_mlp(private: Mapping[str, Floats], shared: Mapping[str, Floats], features: Floats) -> Floats:
    return forward_passes.private_mlp(private, features)


_FORWARD_PASSES = {
    "clip-adapter": _ForwardPasses(_by_cosines(forward_passes.residual_adapter)),
    "faa-clip": _ForwardPasses(_by_cosines(forward_passes.normalised_attention)),
    "facmic": _ForwardPasses(_by_cosines(forward_passes.normalised_attention)),
    "fedclip": _ForwardPasses(_by_cosines(forward_passes.tanh_attention)),
    "fedmedclip": _ForwardPasses(_by_cosines(forward_passes.feature_adaptation), _private_mlp),
    "linear-probe": _ForwardPasses(_linear_probe),
    "whitened-memory": _ForwardPasses(
        whitened_memory.shared_logits, whitened_memory.private_logits, whitened_memory.ENSEMBLE
    ),
}


def _forward_passes(method: str) -> _ForwardPasses:
    if method not in _FORWARD_PASSES:
        raise InvalidInputError(
            f"unknown method {method!r}; known methods: {', '.join(sorted(_FORWARD_PASSES))}"
        )
    return _FORWARD_PASSES[method]
