"""What a command printed or wrote as text, as tables.

What a command printed lies in OUT as `step-1.txt`, of the second command `step-2.txt`, and so on.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.results.markdown_tables import Table, from_rows, tables_of

Tables = dict[str, Table]

_GUARD = re.compile(r"^(.+?), (.+): ([\d.]+), ([\d.]+); zero-shot answers at (\d+) %$", re.MULTILINE)
_LOSS = re.compile(r"^D = (\d+), (\S+): sites (.+), global (.+), mean of (\d+) configurations$", re.MULTILINE)
_CONFIGURATION = re.compile(r"^(\d+-\d+)(?: \(held out\))?: ")
_UNCOMPRESSED = re.compile(r"^  lossless: ([\d.]+) % on the global test$")
_OF_CONFIGURATION = re.compile(r"^  (\S+): sites (.+), global (.+), ([\d,]+) bytes$")
# Lines kept of what has no table of its own.
_LAST_LINES = 8


def markdown(out: Path, *files: str) -> Tables:
    """Return the tables of Markdown files, in order: they are named 1, 2, 3 ..."""
    found = [table for file in files for table in tables_of((out / file).read_text(encoding="utf-8"))]
    return {str(number): table for number, table in enumerate(found, start=1)}


def under_headings(out: Path, file: str) -> Tables:
    """Return the first table below each heading of a Markdown file, which names it."""
    found = {}
    for section in re.split(r"^#+ ", (out / file).read_text(encoding="utf-8"), flags=re.MULTILINE):
        name = re.sub(r"[^a-z0-9]+", "-", section.partition("\n")[0].lower()).strip("-")
        for table in tables_of(section)[:1]:
            found[name] = table
    return found


def codec_loss(out: Path) -> Tables:
    """Return `means` over the configurations, and `configurations`, each by itself."""
    text = _words(out, 1)
    means = [list(found) for found in _LOSS.findall(text)]
    rows = []
    name = without_loss = ""
    for line in text.splitlines():
        if beginning := _CONFIGURATION.match(line):
            name = beginning[1]
        elif uncompressed := _UNCOMPRESSED.match(line):
            without_loss = uncompressed[1]
        elif found := _OF_CONFIGURATION.match(line):
            rows.append([name, found[1], without_loss, *found.groups()[1:]])
    headings = ["sites, less lossless", "global test, less lossless"]
    of_one = ["configuration", "codec", "lossless, global test %", *headings, "bytes, both ways"]
    return {
        "means": from_rows(["D", "codec", *headings, "configurations"], means, words=2),
        "configurations": from_rows(of_one, rows, words=2),
    }


def guard_cost(out: Path) -> Tables:
    """Return `answers`: what answers at a site, and how often that is zero-shot."""
    headings = ["method", "what answers", "accuracy %", "balanced accuracy %", "zero-shot answers at, %"]
    return {"answers": from_rows(headings, [list(row) for row in _GUARD.findall(_words(out, 1))], words=2)}


def last_object(out: Path) -> Tables:
    """Return `figures`: the JSON object in the last line that the command printed."""
    figures = json.loads(_words(out, 1).strip().splitlines()[-1])
    return {
        "figures": from_rows(["figure", "value"], [[key, _shown(value)] for key, value in figures.items()])
    }


def printed(out: Path) -> Tables:
    """Return `printed`: the last lines of what the commands printed, for what has no table of its own."""
    files = sorted(out.glob("step-*.txt"))
    lines = [
        line
        for file in files
        for line in file.read_text(encoding="utf-8").strip().splitlines()[-_LAST_LINES:]
    ]
    return {"printed": from_rows(["printed"], [[line.replace("|", "/")] for line in lines])}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return json.dumps(value).strip('"').replace("|", "/")


def _words(out: Path, step: int) -> str:
    return (out / f"step-{step}.txt").read_text(encoding="utf-8")
