"""What is kept of each result: its tables, and what they were made from. One JSON file for each entry."""

import re
from pathlib import Path

import msgspec

from benchmarks.results.markdown_tables import Table
from fedmedclip.protocol.new_files import write_new_file

FOLDER = "made"


class Inputs(msgspec.Struct, frozen=True):
    """What decides whether a result is up to date; digests as of `benchmarks.results.inputs`.

    `code` is over the sources, `commands` are with DATA, MODEL, BUNDLE and OUT in place of paths, `data` and
    `model` are over their files and empty where there are none.
    """

    code: str
    commands: tuple[str, ...]
    data: str = ""
    model: str = ""

    def difference(self, other: "Inputs") -> str:
        """Return the names of what differs, in words."""
        names = {"code": "the code", "commands": "the command", "data": "the data", "model": "the model"}
        return ", ".join(word for name, word in names.items() if getattr(self, name) != getattr(other, name))


class Record(msgspec.Struct, frozen=True):
    """A result. Seconds are of all attempts together; `data_made` is over images that the run made."""

    entry: str
    page: str
    commit: str
    date: str
    inputs: Inputs
    seconds: float
    processor_seconds: float
    machine: str
    versions: dict[str, str]
    tables: dict[str, Table]
    bundle: str = ""
    data_made: str = ""

    @property
    def is_of_a_commit(self) -> bool:
        """False where the work tree had changes that no commit has."""
        return "+" not in self.commit

    def brief_line(self) -> str:
        """Return the small line below a table that is quoted on another page."""
        data = self.inputs.data or self.data_made
        digest = f", data {data}" if data else ""
        return f"<small>Commit {self.commit}{digest}, {self.date}: `make results ONLY={self.entry}`.</small>"

    def line(self) -> str:
        """Return the small line that stands below each of its tables."""
        first, *others = self.inputs.commands
        more = f" and {len(others)} more" if len(others) > 1 else "".join(f"; `{other}`" for other in others)
        commands = f"`{first}`{more}"
        digests = {
            "data": self.inputs.data or self.data_made,
            "model": self.inputs.model,
            "bundle": self.bundle,
        }
        parts = [f"commit {self.commit}", commands]
        parts += [f"{name} {digest}" for name, digest in digests.items() if digest]
        parts += [self.machine, ", ".join(f"{name} {version}" for name, version in self.versions.items())]
        return f"<small>Made on {self.date} by `make results ONLY={self.entry}`: {'; '.join(parts)}.</small>"


def record_path(pages: Path, entry: str) -> Path:
    """Return where an entry's record lies beside the pages."""
    return pages / FOLDER / f"{entry}.json"


def read_record(pages: Path, entry: str) -> Record | None:
    """Return an entry's record, None where it was never made."""
    path = record_path(pages, entry)
    return msgspec.json.decode(path.read_bytes(), type=Record) if path.exists() else None


def read_records(pages: Path) -> dict[str, Record]:
    """Return all records by entry."""
    files = sorted((pages / FOLDER).glob("*.json"))
    found = (msgspec.json.decode(file.read_bytes(), type=Record) for file in files)
    return {record.entry: record for record in found}


def write_record(pages: Path, record: Record) -> None:
    """Write a record, whole or not at all. Tables have a row on each line, so that a change can be read."""
    path = record_path(pages, record.entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
    inner = re.compile(r"\[\s+((?:\"(?:[^\"\\]|\\.)*\",?\s+)*)\]")
    text = inner.sub(lambda found: "[" + re.sub(r",\n\s+", ", ", found[1]).strip() + "]", text)
    write_new_file(path, text.encode() + b"\n")
