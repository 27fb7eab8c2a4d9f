"""One thing that the doctor looked at."""

from enum import StrEnum

import msgspec

from fedmedclip.protocol.visible import visible


class State(StrEnum):
    """`bad` alone makes a box unfit."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """What was looked at, how it stands, in plain printable words, and what to do about it."""

    name: str
    state: State
    words: str
    advice: str = ""


def good(name: str, words: str) -> Finding:
    """All is well."""
    return Finding(name, State.OK, visible(words))


def note(name: str, words: str, advice: str = "") -> Finding:
    """Not as it might be, or not to be known; the box works."""
    return Finding(name, State.NOTE, visible(words), visible(advice))


def bad(name: str, words: str, advice: str) -> Finding:
    """The box cannot do its work like this."""
    return Finding(name, State.BAD, visible(words), visible(advice))
