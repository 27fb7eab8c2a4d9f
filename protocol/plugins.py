"""What other distributions bring along: methods, aggregation rules and codecs, found by their entry points.

An installed distribution is trusted as this one is. What a message says only ever chooses among the names
that are installed here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from fedmedclip.protocol.errors import InvalidInputError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints


def load_from_outside(group: str, kind: str, name: str, fits: Callable[[Any], bool]) -> Any | None:
    """Return what an installed distribution brings under `name`, None when there is nothing of that name.

    Raises InvalidInputError, with the distribution's name, when two bring it, when it cannot be imported, or
    when it does not `fit`.
    """
    found = tuple(_entry_points(group).select(name=name))
    if not found:
        return None
    if len(found) > 1:
        sources = " and ".join(sorted(map(_distribution, found)))
        raise InvalidInputError(f"{sources} both bring a {kind} {name!r}; uninstall one")
    where = f"{kind} {name!r} of {_distribution(found[0])}"
    try:
        loaded = found[0].load()
    except Exception as error:  # whatever a stranger's module raises while it is imported
        raise InvalidInputError(
            f"{where} cannot be loaded from {found[0].value} ({type(error).__name__}: {error}); "
            "mend or uninstall it"
        ) from error
    if not fits(loaded):
        raise InvalidInputError(
            f"{where} is none: {found[0].value} is a {type(loaded).__name__}; "
            "CONTRIBUTING.md says what it must be"
        )
    return loaded


def known_names(group: str, kind: str, built_in: Collection[str]) -> list[str]:
    """Return the names that are built in and those from outside, sorted.

    Raises InvalidInputError when a distribution brings a name that is built in: the built-in one is used, and
    whoever installed the other should know.
    """
    outside = _entry_points(group)
    for entry in outside:
        if entry.name in built_in:
            raise InvalidInputError(
                f"{_distribution(entry)} brings a {kind} {entry.name!r}, which is built in; "
                "uninstall it, or give its own another name"
            )
    return sorted({*built_in, *outside.names})


def _entry_points(group: str) -> EntryPoints:
    # Imported late, for it takes a seventh of the imports of whoever classifies with a built-in method.
    from importlib.metadata import entry_points

    return entry_points(group=group)


def _distribution(entry: EntryPoint) -> str:
    return f"distribution {entry.dist.name}" if entry.dist else entry.value
