"""The name that a person probably meant, where they typed one that does not exist."""

import difflib
from collections.abc import Iterable

# The share of the letters of both names that has to agree: "hots" is near "host", "sit" near "site".
LIKENESS = 0.6


def near_name(name: str, known: Iterable[str], likeness: float = LIKENESS) -> str | None:
    """Return the known name that is most like `name`, None when none is like it."""
    by_spelling = {_spelling(other): other for other in known}
    # Longer than any name of ours: comparing would only take long.
    found = difflib.get_close_matches(_spelling(name[:100]), by_spelling, n=1, cutoff=likeness)
    return by_spelling[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], likeness: float = LIKENESS) -> str:
    """Return "; did you mean 'host'?" to go behind a message about `name`, "" when no known name is near."""
    near = near_name(name, known, likeness)
    return "" if near is None else f"; did you mean {near!r}?"


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the line about a name that does not exist: which, which is near, and which there are."""
    names = list(known)
    shown = name if len(name) <= 80 else name[:77] + "..."
    return f"unknown {kind} {shown!r}{did_you_mean(name, names)} (known: {', '.join(names)})"


def _spelling(name: str) -> str:
    return name.lower().replace("_", "-")
