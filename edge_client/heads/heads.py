"""The heads in inference: numpy only, so that a device without torch classifies.

    embeddings -> shared head -> features, and logits (most methods: cosines with the class embeddings)
                                 features -> private head -> logits
    both -> ensemble

A method's own file (`edge_client.learning.methods`) says what its heads are.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads import layers
from fedmedclip.edge_client.heads.ensemble import EnsembleRule, combine
from fedmedclip.edge_client.heads.layers import softmax, unit_rows
from fedmedclip.edge_client.heads.method import site_method
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

    `embeddings` float32 (N, D) as the method takes them (`SiteMethod.taken`), `class_embeddings` float32
    (C, D) of unit rows, `logit_scale` the bundle's. The arrays of the heads are those of
    `shared_head_specification` and `private_head_specification`; they are not checked here (`load_heads`
    does). Without a `rule` the heads vote as the method has it.

    Raises InvalidInputError for an unknown method.
    """
    found = site_method(method)
    features, shared_logits = found.shared_pass(layers, shared, embeddings, class_embeddings, logit_scale)
    zero_shot = softmax(logit_scale * (unit_rows(embeddings) @ class_embeddings.T))
    shared_probabilities = softmax(shared_logits)
    if not private or found.private_pass is None:
        no_weight = np.full_like(shared_logits.max(axis=1), 0)
        return Predictions(zero_shot, shared_probabilities, None, shared_probabilities, no_weight)
    logits = found.private_pass(layers, private, features)
    ensemble, weight = combine(rule or found.ensemble, shared_logits, logits)
    return Predictions(zero_shot, shared_probabilities, softmax(logits), ensemble, weight)


def ensemble_of(method: str) -> EnsembleRule:
    """Return how the heads of a method vote; raises InvalidInputError for an unknown method."""
    return site_method(method).ensemble


def private_head_specification(method: str, embedding_size: int, classes: int) -> HeadSpecification | None:
    """Return the arrays of a method's private head for embeddings of size D; None when it has none.

    It may hold what only training uses, such as FAA-CLIP's discriminator. Batch-norm statistics are arrays
    like the others. Raises InvalidInputError for an unknown method.
    """
    arrays = site_method(method).private_arrays
    return arrays(embedding_size, classes) if arrays else None


def initial_private_head(
    method: str, embedding_size: int, classes: int, federation_seed: int, site: str
) -> NamedArrays:
    """Return the private head that a site starts from; empty for a method without one."""
    specification = private_head_specification(method, embedding_size, classes)
    if specification is None:
        return {}
    return specification.initial(derive_seed(federation_seed, purpose="private head", site=site))
