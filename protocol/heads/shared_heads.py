"""The shared head of a method: both sides derive a bit-identical version 0 from the federation's seed."""

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.methods import known_methods, method_named
from fedmedclip.protocol.seeds import derive_seed

__all__ = [
    "initial_shared_head",
    "known_methods",
    "sends_statistics",
    "shared_head_specification",
    "usual_releases",
]


def sends_statistics(method: str) -> bool:
    """Whether a site's shared arrays are statistics of its images (`Method`) and not training."""
    return method_named(method).sends_statistics


def usual_releases(method: str, rounds: int) -> int:
    """Return how many updates a privacy budget lasts for if nobody says: one of statistics, else one a round.

    Raises InvalidInputError for an unknown method.
    """
    return 1 if sends_statistics(method) else rounds


def shared_head_specification(
    method: str, embedding_size: int, classes: int | None = None
) -> HeadSpecification:
    """Return the arrays of a method's shared head for embeddings of size D and a bundle of C classes.

    The heads of most methods do not depend on the classes; those that do need their number. Raises
    InvalidInputError for an unknown method, a size below 1 or a number of classes that is needed and missing.
    """
    found = method_named(method)
    if embedding_size < 1:
        raise InvalidInputError(f"the embedding size is {embedding_size}, it must be at least 1")
    if found.needs_classes and (classes is None or classes < 1):
        raise InvalidInputError(f"the head of method {method!r} needs the number of classes, got {classes}")
    return found.shared_arrays(embedding_size, classes or 0)


def initial_shared_head(
    method: str, embedding_size: int, federation_seed: int, classes: int | None = None
) -> NamedArrays:
    """Return version 0 of a federation's shared head: the same bits at the aggregator and at every site.

    Raises InvalidInputError as `shared_head_specification` does.
    """
    specification = shared_head_specification(method, embedding_size, classes)
    return specification.initial(derive_seed(federation_seed, purpose="shared head"))
