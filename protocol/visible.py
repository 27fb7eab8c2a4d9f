"""Names that others chose, as they may stand in a line of ours: on the terminal, in a log, in a table.

A file's name may hold line breaks, which would begin a line of their own, escapes that a terminal obeys,
marks that turn the direction of writing, and bytes that are not UTF-8, which no text file takes.
"""

LONGEST_LINE = 2000
# There stands what to do.
_KEPT_END = 500


def visible(name: object) -> str:
    r"""Return the text of `name` with all that cannot be printed as escapes: \n, \x1b, \u202e, ...

    A byte that is not UTF-8, which Python keeps as a surrogate (PEP 383), becomes \xNN; printable text stays.
    """
    text = str(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def one_line(text: str) -> str:
    """Return a text that may quote what others sent as one line of at most `LONGEST_LINE` characters.

    All that cannot be printed is escaped as in `visible`; of what is too long the beginning and the end stay.
    """
    return _shortened(visible(_shortened(text)))


def is_utf8(name: str) -> bool:
    """Whether a name from the file system can be written as UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_LINE:
        return text
    gap = " ... "
    return text[: LONGEST_LINE - _KEPT_END - len(gap)] + gap + text[-_KEPT_END:]
