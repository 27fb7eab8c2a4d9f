"""What is committed in docs/results hangs together: pages, records, the index and README."""

import re

import pytest

from benchmarks.results.entries import read_entries
from benchmarks.results.index import PAGES, made
from benchmarks.results.inputs import source_files
from benchmarks.results.markdown_tables import blocks, to_markdown
from benchmarks.results.pages import MARKED, astray, fill, marked_tables
from benchmarks.results.records import read_records
from tests import ROOT

ENTRIES = read_entries()
RECORDS = read_records(PAGES)
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILL = "python -m benchmarks.results --fill fills in what the records say"
FILES = [*sorted(PAGES.glob("*.md")), ROOT / "README.md"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_tables_say_what_their_records_say_with_their_lines(file):
    text = file.read_text(encoding="utf-8")
    assert astray(text, RECORDS) == []
    assert fill(text, RECORDS, quoted=file.name == "README.md") == text, FILL
    for name, body in marked_tables(text).items():
        assert name.partition("/")[0] in ENTRIES, name
        assert len(re.findall(r"^<small>.*make results ONLY=.*</small>$", body, re.MULTILINE)) == 1, name


@pytest.mark.parametrize("file", sorted(PAGES.glob("*.md")), ids=lambda file: file.name)
def test_every_table_of_figures_is_made_by_a_command_or_says_that_none_does(file):
    outside = MARKED.sub("", file.read_text(encoding="utf-8"))
    before = ""
    for block, is_table in blocks(outside):
        if is_table:
            assert re.search(r"<!-- (words|made|once: [0-9a-f]{7,}) -->\n$", before), block[:200]
        before = block


def test_records_are_of_results_that_there_are_and_say_where_they_come_from():
    assert RECORDS.keys() <= ENTRIES.keys()
    for name, record in RECORDS.items():
        entry = ENTRIES[name]
        assert record.page == entry.page
        assert record.inputs.commands == entry.commands, f"make results ONLY={name}"
        assert re.fullmatch(r"[0-9a-f]{10}", record.commit), f"{name} was made of what no commit has"
        assert record.inputs.code
        assert bool(record.inputs.data) == entry.uses_data
        assert bool(record.bundle) == entry.uses_bundle
        assert record.machine
        assert all((PAGES / file).exists() for file in entry.files)


def test_the_index_says_when_each_result_was_made():
    index = (PAGES / "index.md").read_text()
    assert f"<!-- made -->\n{to_markdown(made(RECORDS))}<!-- end -->" in index, FILL


def test_what_results_are_made_by_exists():
    for entry in ENTRIES.values():
        assert (PAGES / entry.page).resolve().exists() or f"module:{entry.modules[0]}" in entry.needs
        if not any(need.startswith("module:") for need in entry.needs):
            assert source_files(entry.modules)
        assert len(entry.quick_commands()) in (0, len(entry.commands))


def test_figures_that_readme_quotes_in_sentences_stand_in_the_results():
    section = README.partition("## What it does today")[2].partition("\n## ")[0]
    results = " ".join(file.read_text(encoding="utf-8") for file in PAGES.glob("*.md"))
    sentences = re.sub(r"\S*docs/results/\S*|`[^`]*`|ViT-B/32", "", MARKED.sub("", section))
    numbers = re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*(?: %)?", sentences)
    assert [number for number in numbers if not re.search(rf"(?<![\w.]){number}(?![\w.])", results)] == []
    assert len(marked_tables(section)) >= 3
