"""The methods by name, and what everyone who takes part in a federation must know of one.

The aggregator has no torch and never runs a head; it needs names, shapes and first values only. A method is
found by its name, as a plug-in is: the built-in ones in the table below, the others in the entry points of
the distributions that are installed. Nothing is imported before it is asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module

from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.plugins import known_names, load_from_outside

GROUP = "fedmedclip.methods"
_BUILT_IN = {
    "clip-adapter": "fedmedclip.edge_client.learning.methods.clip_adapter:METHOD",
    "faa-clip": "fedmedclip.edge_client.learning.methods.faa_clip:METHOD",
    "facmic": "fedmedclip.edge_client.learning.methods.facmic:METHOD",
    "fedclip": "fedmedclip.edge_client.learning.methods.fedclip:METHOD",
    "fedmedclip": "fedmedclip.edge_client.learning.methods.fedmedclip:METHOD",
    "linear-probe": "fedmedclip.edge_client.learning.methods.linear_probe:METHOD",
    "one-message": "fedmedclip.edge_client.learning.methods.one_message:METHOD",
    "whitened-memory": "fedmedclip.edge_client.learning.methods.whitened_memory:METHOD",
}
USUAL_CODEC = "lowrank"
_NOT_FEDERATED = frozenset({"zero-shot", "local-only"})

Arrays = Callable[[int, int], HeadSpecification]
"""(embedding size D, number of classes C) to the arrays of a head."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What travels in a method. Sites need more of it: `edge_client.heads.method.SiteMethod`.

    `shared_arrays(D, C)` are those of the shared head; without `needs_classes` C may be 0 and must not
    matter. `sends_statistics`: a site's shared arrays are statistics of its images, the same in each round,
    and not training. Such a site owes the federation one difference in all; what a lossy codec left out of it
    is the residual, and that alone is sent from then on: the difference again would count it twice.
    `constants_chosen_on` names the data sets, by the names of their folders, on which the method's constants
    and the defaults of its training settings were chosen: a table of results on these must say so.
    `rounds_needed` is how many rounds a run has where nobody asks for another number, `usual_codec` how heads
    are encoded, both ways, where nobody names another; None: as is usual.
    """

    name: str
    shared_arrays: Arrays
    needs_classes: bool = False
    sends_statistics: bool = False
    constants_chosen_on: tuple[str, ...] = ()
    rounds_needed: int | None = None
    usual_codec: str | None = None


@contextmanager
def faults_of_others(name: str) -> Iterator[None]:
    """Let whatever the method of another distribution raises be an InvalidInputError that names it."""
    try:
        yield
    except FedMedClipError:
        raise
    except Exception as error:
        if name in _BUILT_IN:
            raise
        said = f"{type(error).__name__}: {error}"
        raise InvalidInputError(f"method {name!r}, of another distribution, failed ({said})") from error


def known_methods() -> list[str]:
    """Return the names of the methods, sorted.

    Raises InvalidInputError when another distribution brings one whose name is built in.
    """
    return known_names(GROUP, "method", _BUILT_IN)


def rounds_for(name: str, asked: int | None, usual: int) -> int:
    """Return how many rounds a method is played: those `asked` for, those that it needs, or the `usual` ones.

    Raises InvalidInputError as `method_named` does.
    """
    return asked or method_named(name).rounds_needed or usual


def codec_for(name: str, asked: str | None) -> str:
    """Return how a method's heads are encoded: as `asked` for, as suits it, or as is usual.

    Raises InvalidInputError as `method_named` does.
    """
    return asked or method_named(name).usual_codec or USUAL_CODEC


@cache
def method_named(name: str) -> Method:
    """Return a method; no other is imported, and no entry point is looked at for a built-in name.

    Raises InvalidInputError for an unknown name, and when what another distribution brings under it cannot be
    used.
    """
    if name in _NOT_FEDERATED:
        raise InvalidInputError(
            f"in method {name!r} nothing is federated; it is a baseline of `fedmedclip bench accuracy`"
        )
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: Method = getattr(import_module(module), attribute)
        return built_in
    found: Method | None = load_from_outside(GROUP, "method", name, lambda loaded: isinstance(loaded, Method))
    if found is None:
        raise InvalidInputError(unknown_name("method", name, known_methods()))
    if found.name != name:
        raise InvalidInputError(
            f"method {name!r} calls itself {found.name!r}; its author must give it one name"
        )
    return found
