"""Names that others chose, as they may stand in a line of ours: on the terminal, in a log, in a table.

A file's name may hold line breaks, which would begin a line of their own, escapes that a terminal obeys,
marks that turn the direction of writing, and bytes that are not UTF-8, which no text file takes.
"""


def visible(name: object) -> str:
    r"""Return the text of `name` with all that cannot be printed as escapes: \n, \x1b, \u202e, ...

    A byte that is not UTF-8, which Python keeps as a surrogate (PEP 383), becomes \xNN; printable text stays.
    """
    text = str(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def is_utf8(name: str) -> bool:
    """Whether a name from the file system can be written as UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
