"""All pages with tables that are filled in, and the index, which says when each result was made."""

import re
from collections.abc import Mapping
from pathlib import Path

from benchmarks.results.entries import read_entries
from benchmarks.results.inputs import ROOT
from benchmarks.results.markdown_tables import Table, from_rows, to_markdown
from benchmarks.results.pages import fill_file
from benchmarks.results.records import Record, read_records

PAGES = ROOT / "docs" / "results"
_MADE = re.compile(r"(?<=<!-- made -->\n).*?(?=<!-- end -->)", re.DOTALL)


def fill_pages(pages: Path) -> None:
    """Fill in marked tables of the pages, of README where the pages are the repository's, and the index."""
    records = read_records(pages)
    for file in sorted(pages.glob("*.md")):
        fill_file(file, records)
    if pages == PAGES:
        fill_file(ROOT / "README.md", records, quoted=True)
    index = pages / "index.md"
    text = index.read_text(encoding="utf-8")
    index.write_text(_MADE.sub(lambda _: to_markdown(made(records)), text), encoding="utf-8")


def made(records: Mapping[str, Record]) -> Table:
    """Return a row for each result: its page, commit and date, and how long it took."""
    rows = []
    for name, entry in read_entries().items():
        record = records.get(name)
        file = Path(entry.page).name
        page = f"[{file}]({entry.page})"
        if record is None:
            rows.append([name, file, "not since results are recorded", "", ""])
        else:
            minutes = f"{record.seconds / 60:,.1f}, {record.processor_seconds / 60:,.1f}"
            digest = record.inputs.data or record.data_made
            rows.append([name, page, f"{record.commit}, {record.date}", digest, minutes])
    return from_rows(["result", "page", "made at", "data", "minutes, of processor"], rows, words=4)
