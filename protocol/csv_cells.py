"""Cells of a CSV file that a spreadsheet takes as text, whatever name stands in them.

Excel, LibreOffice and others run a cell that begins with =, +, -, @ or their wide forms as a formula (OWASP,
"CSV injection"). A path gets ./ before it, which is the same path; another text an apostrophe, by which
spreadsheets mark text. Numbers stay.
"""

import re

_BEGINS_A_FORMULA = r"[=+\-@\t\r＝＋－＠]"
_PATH = re.compile(rf"(\./)*{_BEGINS_A_FORMULA}")
_TEXT = re.compile(rf"'*{_BEGINS_A_FORMULA}")


def path_cell(path: str) -> str:
    """Return a path as it stands in a cell."""
    return f"./{path}" if _PATH.match(path) else path


def path_of(cell: str) -> str:
    """Return the path that `path_cell` made a cell of."""
    return cell[2:] if cell.startswith("./") and _PATH.match(cell) else cell


def text_cell(text: str) -> str:
    """Return a text, such as a class name, as it stands in a cell."""
    return f"'{text}" if _TEXT.match(text) and not _is_number(text) else text


def text_of(cell: str) -> str:
    """Return the text that `text_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _TEXT.match(cell) else cell


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+([.,]\d+)?", text) is not None
