"""What the shared head of each method is made of.

The aggregator has no torch and never runs a head; it needs names, shapes and first values only. Sites build
their modules to the same specification, so both sides derive a bit-identical version 0 from the federation's
seed.
"""

import math
from collections.abc import Callable

from protocol.errors import InvalidInputError
from protocol.head import HeadSpecification, NamedArrays, TensorSpecification
from protocol.seeds import derive_seed


def masked_linear_tensors(name: str, outputs: int, inputs: int) -> tuple[TensorSpecification, ...]:
    """Return the arrays of one masked linear layer: `name.weight`, `name.bias`, `name.threshold`.

    Shapes (outputs, inputs), (outputs,), (outputs,). Weight and bias start uniform within 1/sqrt(inputs),
    as PyTorch's own linear layer does; thresholds start at 0.
    """
    bound = 1 / math.sqrt(inputs)
    return (
        TensorSpecification(f"{name}.weight", (outputs, inputs), initial_bound=bound),
        TensorSpecification(f"{name}.bias", (outputs,), initial_bound=bound),
        TensorSpecification(f"{name}.threshold", (outputs,)),
    )


def _fedmedclip(embedding_size: int) -> HeadSpecification:
    """FAM: two masked linear layers of D to D. The normalisation between them has no parameters."""
    return HeadSpecification(
        masked_linear_tensors("first", embedding_size, embedding_size)
        + masked_linear_tensors("second", embedding_size, embedding_size)
    )


_SPECIFICATIONS: dict[str, Callable[[int], HeadSpecification]] = {
    "fedmedclip": _fedmedclip,
}


def known_methods() -> list[str]:
    """Return the names of the methods, sorted."""
    return sorted(_SPECIFICATIONS)


def shared_head_specification(method: str, embedding_size: int) -> HeadSpecification:
    """Return the arrays of a method's shared head for embeddings of size D.

    Raises InvalidInputError for an unknown method or a size below 1.
    """
    if method not in _SPECIFICATIONS:
        raise InvalidInputError(f"unknown method {method!r}; known methods: {', '.join(known_methods())}")
    if embedding_size < 1:
        raise InvalidInputError(f"the embedding size is {embedding_size}, it must be at least 1")
    return _SPECIFICATIONS[method](embedding_size)


def initial_shared_head(method: str, embedding_size: int, federation_seed: int) -> NamedArrays:
    """Return version 0 of a federation's shared head: the same bits at the aggregator and at every site.

    Raises InvalidInputError as `shared_head_specification` does.
    """
    specification = shared_head_specification(method, embedding_size)
    return specification.initial(derive_seed(federation_seed, purpose="shared head"))
