"""Tables in pages: what stands between two markers is made of the records, everything else is a person's.

<!-- table: ENTRY/TABLE -->
| the table |

<small>the line that says what it was made from</small>
<!-- end -->
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.results.markdown_tables import replace_tables, to_markdown
from benchmarks.results.records import Record

MARKED = re.compile(r"<!-- table: (?P<name>[^\s]+) -->\n(?P<body>.*?)<!-- end -->\n", re.DOTALL)
_SMALL = re.compile(r"\n<small>.*?</small>\n", re.DOTALL)


def not_recorded(entry: str) -> str:
    """Return the line below a table that was there before results were recorded."""
    return f"<small>From before results were recorded; `make results ONLY={entry}` makes it again.</small>"


def marked(name: str, body: str, line: str) -> str:
    """Return a table between its markers, with its line."""
    return f"<!-- table: {name} -->\n{body.rstrip()}\n\n{line}\n<!-- end -->\n"


def fill(text: str, records: Mapping[str, Record]) -> str:
    """Return a page with each marked table as its record has it.

    A table without a record stays as it is, and its line says so. Raises KeyError for a name that the record
    of its entry does not have.
    """

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        entry, _, table = name.partition("/")
        record = records.get(entry)
        if record is None:
            return marked(name, _SMALL.sub("\n", found["body"]), not_recorded(entry))
        if table not in record.tables:
            raise KeyError(f"{name}: the record has {', '.join(record.tables) or 'no tables'}")
        return marked(name, to_markdown(record.tables[table]), record.line())

    return MARKED.sub(block, text)


def fill_file(path: Path, records: Mapping[str, Record]) -> bool:
    """Fill the tables of a page; return whether anything has changed."""
    before = path.read_text(encoding="utf-8")
    after = fill(before, records)
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def mark_whole_page(text: str, entry: str, line: str | Callable[[], str]) -> str:
    """Return a page that a command wrote as a whole, with each of its tables between markers.

    Tables are named by their number on the page: `ENTRY/1` is the first.
    """
    words = line if isinstance(line, str) else line()
    return replace_tables(text, lambda number, table: marked(f"{entry}/{number + 1}", table, words))


def marked_tables(text: str) -> dict[str, str]:
    """Return what stands between the markers of a page, by name."""
    return {found["name"]: found["body"] for found in MARKED.finditer(text)}
