"""What the shared head of each method is made of.

The aggregator has no torch and never runs a head; it needs names, shapes and first values only. Sites build
their modules to the same specification, so both sides derive a bit-identical version 0 from the federation's
seed.
"""

import math
from collections.abc import Callable

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.seeds import derive_seed


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


def linear_tensors(name: str, outputs: int, inputs: int) -> tuple[TensorSpecification, ...]:
    """Return `name.weight` (outputs, inputs) and `name.bias` (outputs,), uniform within 1/sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    return (
        TensorSpecification(f"{name}.weight", (outputs, inputs), initial_bound=bound),
        TensorSpecification(f"{name}.bias", (outputs,), initial_bound=bound),
    )


def batch_norm_tensors(name: str, features: int) -> tuple[TensorSpecification, ...]:
    """Return `name.weight`, `.bias`, `.running_mean`, `.running_var`, each (features,)."""
    return (
        TensorSpecification(f"{name}.weight", (features,), initial_value=1.0),
        TensorSpecification(f"{name}.bias", (features,)),
        TensorSpecification(f"{name}.running_mean", (features,), measured=True),
        TensorSpecification(f"{name}.running_var", (features,), initial_value=1.0, lowest=0.0, measured=True),
    )


def _fedmedclip(size: int, classes: int) -> HeadSpecification:
    """FAM: two masked linear layers of D to D. The normalisation between them has no parameters."""
    return HeadSpecification(
        masked_linear_tensors("first", size, size) + masked_linear_tensors("second", size, size)
    )


def _normalised_attention(size: int, classes: int) -> HeadSpecification:
    """FACMIC's and FAA-CLIP's: linear D to D, batch norm, (LeakyReLU), linear D to D, (softmax)."""
    return HeadSpecification(
        linear_tensors("first", size, size)
        + batch_norm_tensors("norm", size)
        + linear_tensors("second", size, size)
    )


def _fedclip(size: int, classes: int) -> HeadSpecification:
    """FedCLIP's: linear D to D, (tanh), linear D to D, (softmax)."""
    return HeadSpecification(linear_tensors("first", size, size) + linear_tensors("second", size, size))


def _linear_probe(size: int, classes: int) -> HeadSpecification:
    """One linear layer of D to the classes, from zero: version 0 knows nothing."""
    return HeadSpecification(
        (
            TensorSpecification("classifier.weight", (classes, size)),
            TensorSpecification("classifier.bias", (classes,)),
        )
    )


def _clip_adapter(size: int, classes: int) -> HeadSpecification:
    """CLIP-Adapter's bottleneck: linear D to D/4, (ReLU), linear D/4 to D, (ReLU)."""
    narrow = max(1, size // 4)
    return HeadSpecification(linear_tensors("down", narrow, size) + linear_tensors("up", size, narrow))


def _whitened_memory(size: int, classes: int) -> HeadSpecification:
    """Sufficient statistics of the sites' embeddings, as means per image: a weighted mean pools them.

    Shares and spread are not negative in the end, but may be on the way there: a limit would keep for good
    what a lossy codec takes back later. They come first, before any matrix that they could be a column of:
    whoever reads the rest needs them right.
    """
    return HeadSpecification(
        (
            TensorSpecification("class_shares", (classes,)),
            TensorSpecification("spread", (1,)),
            TensorSpecification("class_sums", (classes, size)),
            TensorSpecification("scatter", (size, size)),
        )
    )


_SPECIFICATIONS: dict[str, Callable[[int, int], HeadSpecification]] = {
    "clip-adapter": _clip_adapter,
    "faa-clip": _normalised_attention,
    "facmic": _normalised_attention,
    "fedclip": _fedclip,
    "fedmedclip": _fedmedclip,
    "linear-probe": _linear_probe,
    "whitened-memory": _whitened_memory,
}
_NEEDS_CLASSES = frozenset({"linear-probe", "whitened-memory"})
_STATISTICS = frozenset({"whitened-memory"})
_NOT_FEDERATED = frozenset({"zero-shot", "local-only"})


def sends_statistics(method: str) -> bool:
    """Whether a site's shared arrays are statistics of its images, the same in each round, and not training.

    Such a site owes the federation one difference in all. What a lossy codec left out of it is the residual,
    and that alone is sent from then on: the difference again would count it twice.
    """
    return method in _STATISTICS


def known_methods() -> list[str]:
    """Return the names of the methods, sorted."""
    return sorted(_SPECIFICATIONS)


def shared_head_specification(
    method: str, embedding_size: int, classes: int | None = None
) -> HeadSpecification:
    """Return the arrays of a method's shared head for embeddings of size D and a bundle of C classes.

    The heads of most methods do not depend on the classes; those that do need their number. Raises
    InvalidInputError for an unknown method, a size below 1 or a number of classes that is needed and missing.
    """
    if method in _NOT_FEDERATED:
        raise InvalidInputError(
            f"in method {method!r} nothing is federated; it is a baseline of `fedmedclip bench accuracy`"
        )
    if method not in _SPECIFICATIONS:
        raise InvalidInputError(unknown_name("method", method, known_methods()))
    if embedding_size < 1:
        raise InvalidInputError(f"the embedding size is {embedding_size}, it must be at least 1")
    if method in _NEEDS_CLASSES and (classes is None or classes < 1):
        raise InvalidInputError(f"the head of method {method!r} needs the number of classes, got {classes}")
    return _SPECIFICATIONS[method](embedding_size, classes or 0)


def initial_shared_head(
    method: str, embedding_size: int, federation_seed: int, classes: int | None = None
) -> NamedArrays:
    """Return version 0 of a federation's shared head: the same bits at the aggregator and at every site.

    Raises InvalidInputError as `shared_head_specification` does.
    """
    specification = shared_head_specification(method, embedding_size, classes)
    return specification.initial(derive_seed(federation_seed, purpose="shared head"))
