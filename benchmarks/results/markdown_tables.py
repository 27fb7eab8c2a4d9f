"""Tables of a Markdown text: found, taken apart, and written again."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_RULE = re.compile(r"^\|?\s*:?-{3,}:?\s*(\|\s*:?-{3,}:?\s*)*\|?$")


class Table(NamedTuple):
    """Headings, rows, and the rule between them as it was written (`---`, `---:` per column)."""

    headings: list[str]
    rows: list[list[str]]
    rule: list[str]


def tables_of(text: str) -> list[Table]:
    """Return the tables of a text, from top to bottom."""
    return [parse(block) for block, is_table in blocks(text) if is_table]


def parse(text: str) -> Table:
    """Return a table from its lines. A cell holds no `|`: nothing of ours does."""
    headings, rule, *rows = [_cells(line) for line in text.strip().splitlines()]
    return Table(headings, rows, rule)


def from_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> Table:
    """Return a table whose first `words` columns are words and the others figures."""
    rule = ["---" if column < words else "---:" for column in range(len(headings))]
    return Table(list(headings), [list(row) for row in rows], rule)


def to_markdown(table: Table) -> str:
    """Return the table's lines, with a line break at the end."""
    lines = [table.headings, table.rule, *table.rows]
    return "".join("|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n" for cells in lines)


def replace_tables(text: str, change: Callable[[int, str], str]) -> str:
    """Return the text with each table replaced by what `change` makes of its number and its lines."""
    number = 0
    parts = []
    for block, is_table in blocks(text):
        parts.append(change(number, block) if is_table else block)
        number += is_table
    return "".join(parts)


def blocks(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the text in pieces: (lines, whether they are a table)."""
    lines = text.splitlines(keepends=True)
    plain: list[str] = []
    place = 0
    while place < len(lines):
        after = place
        if place + 1 < len(lines) and "|" in lines[place] and _RULE.match(lines[place + 1].strip()):
            while after < len(lines) and lines[after].lstrip().startswith("|"):
                after += 1
        if after == place:
            plain.append(lines[place])
            place += 1
            continue
        if plain:
            yield "".join(plain), False
            plain = []
        yield "".join(lines[place:after]), True
        place = after
    if plain:
        yield "".join(plain), False


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
