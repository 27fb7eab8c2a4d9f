"""Tables in pages: what stands between two markers is made of the records, everything else is a person's.

<!-- table: ENTRY/TABLE -->
| the table |

<small>the line that says what it was made from</small>
<!-- end -->
"""

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.results.markdown_tables import replace_tables, to_markdown
from benchmarks.results.records import Record

MARKED = re.compile(r"<!-- table: (?P<name>[^\s]+) -->\n(?P<body>.*?)<!-- end -->\n", re.DOTALL)
_SMALL = re.compile(r"(?:^|\n)<small>.*?</small>\n", re.DOTALL)


def not_recorded(entry: str, body: str) -> str:
    """Return the line below a table that was there before results were recorded, or is not there yet."""
    again = f"`make results ONLY={entry}` makes it"
    return (
        "<small>From before results were recorded; accuracies are of splits by file and no claim of today's; "
        f"{again} again.</small>"
        if body.strip()
        else (f"<small>Not made yet; {again}.</small>")
    )


def marked(name: str, body: str, line: str) -> str:
    """Return a table between its markers, with its line."""
    table = f"{body.rstrip()}\n\n" if body.strip() else ""
    return f"<!-- table: {name} -->\n{table}{line}\n<!-- end -->\n"


def fill(text: str, records: Mapping[str, Record], *, quoted: bool = False) -> str:
    """Return a page with each marked table as its record has it.

    A table without a record, or that its record does not have, stays as it is, and its line says so. On a
    page that quotes, lines are short.
    """

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        entry, _, table = name.partition("/")
        record = records.get(entry)
        if record is None or table not in record.tables:
            body = _SMALL.sub("\n", found["body"])
            return marked(name, body, not_recorded(entry, body))
        line = record.brief_line() if quoted else record.line()
        return marked(name, to_markdown(record.tables[table]), line)

    return MARKED.sub(block, text)


def astray(text: str, records: Mapping[str, Record]) -> list[str]:
    """Return the names of marked tables that the records of their results do not have."""
    names = [tuple(name.split("/", 1)) for name in marked_tables(text)]
    return [
        f"{entry}/{table}"
        for entry, table in names
        if entry in records and table not in records[entry].tables
    ]


def fill_file(path: Path, records: Mapping[str, Record], *, quoted: bool = False) -> None:
    """Fill the tables of a page where they have changed."""
    before = path.read_text(encoding="utf-8")
    after = fill(before, records, quoted=quoted)
    if after != before:
        path.write_text(after, encoding="utf-8")


def mark_whole_page(text: str, entry: str, line: str) -> str:
    """Return a page that a command wrote as a whole, with each of its tables between markers.

    Tables are named by their number on the page: `ENTRY/1` is the first.
    """
    return replace_tables(text, lambda number, table: marked(f"{entry}/{number + 1}", table, line))


def marked_tables(text: str) -> dict[str, str]:
    """Return what stands between the markers of a page, by name."""
    return {found["name"]: found["body"] for found in MARKED.finditer(text)}
