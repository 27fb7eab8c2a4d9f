"""The name that a person probably meant, where they typed one that does not exist."""

import difflib
import unicodedata
from collections.abc import Iterable

# The share of the letters of both names that has to agree: "hots" is near "host", "sit" near "site".
LIKENESS = 0.6


def spelling(name: str) -> str:
    """Return what two names share that only look different, or only look alike.

    Case, blanks around it, and whether words are parted by blanks, underscores or hyphens do not count, nor
    does how accents and widths are coded (Unicode's NFKC): "No Tumour " and "no_tumour" have one spelling.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "-".join(folded.replace("_", " ").replace("-", " ").split())


def near_name(name: str, known: Iterable[str], likeness: float = LIKENESS) -> str | None:
    """Return the known name that is most like `name`, None when none is like it."""
    by_spelling = {spelling(other): other for other in known}
    # Longer than any name of ours: comparing would only take long.
    found = difflib.get_close_matches(spelling(name[:100]), by_spelling, n=1, cutoff=likeness)
    return by_spelling[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str], likeness: float = LIKENESS) -> str:
    """Return "; did you mean 'host'?" to go behind a message about `name`, "" when no known name is near."""
    near = near_name(name, known, likeness)
    return "" if near is None else f"; did you mean {quoted(near, name)}?"


def quoted(name: str, other: str) -> str:
    """Return a name in quotes; where it would look like `other`, with what is not ASCII as escapes."""
    return ascii(name) if name != other and _look_alike(name, other) else repr(name)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the line about a name that does not exist: which, which is near, and which there are."""
    names = list(known)
    shown = name if len(name) <= 80 else name[:77] + "..."
    return f"unknown {kind} {shown!r}{did_you_mean(name, names)} (known: {', '.join(names)})"


def _look_alike(name: str, other: str) -> bool:
    """Whether two names look the same: accents coded in two ways, or letters of another alphabet."""
    composed, other_composed = (unicodedata.normalize("NFKC", text).strip() for text in (name, other))
    return composed.isprintable() and (
        len(composed) == len(other_composed) and all(map(_letters_look_alike, composed, other_composed))
    )


def _letters_look_alike(one: str, other: str) -> bool:
    if one == other:
        return True
    base, other_base = (unicodedata.normalize("NFD", letter)[0] for letter in (one, other))
    return one.isascii() != other.isascii() and base != other_base
