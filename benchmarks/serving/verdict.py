"""What has to hold once all is answered: nothing lost, twice or wrong, nothing left lying about."""

import csv
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.serving.expected import Said, is_as_expected, said

_MOST_EXAMPLES = 5
_OWN_FILES = ("serve.db", "folder.db", "folder-rows.db", "lock", "self-test-passed", "drift")


@dataclass
class Verdict:
    """Counts of what went wrong, with `examples`; what is `aside` was answered by its reason."""

    acknowledged: int = 0
    lost: int = 0
    twice: int = 0
    wrong: int = 0
    aside: int = 0
    left_over: int = 0
    sender_faults: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing was lost, twice, wrong or left lying about."""
        return not (self.lost or self.twice or self.wrong or self.left_over or self.sender_faults)

    def count(self, kind: str, example: str) -> None:
        """Count one of a kind."""
        setattr(self, kind, getattr(self, kind) + 1)
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _MOST_EXAMPLES:
            examples.append(example)

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is printed."""
        return asdict(self)


class Rows:
    """The answers in the journal of a service that is stopped, by door."""

    def __init__(self, state: Path) -> None:
        self.by_id: dict[str, dict[str, Any]] = {}
        self.by_name: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.states: dict[str, str] = {}
        with closing(sqlite3.connect(state / "serve.db")) as database:
            for id, arrival, state_of_it, answer in database.execute(
                "SELECT id, arrival, state, answer FROM arrivals"
            ):
                stored = msgspec.msgpack.decode(arrival)
                self.states[id] = state_of_it
                self.by_name[stored["door"], stored["name"]].append(id)
                if answer is not None:
                    self.by_id[id] = msgspec.msgpack.decode(answer)
            self.deliveries = database.execute("SELECT id, outlet, state, reason FROM deliveries").fetchall()


def judge_http(
    verdict: Verdict, rows: Rows, acknowledged: Mapping[str, int], expected: Sequence[Said]
) -> None:
    """Judge answers by their ids."""
    for id, picture in acknowledged.items():
        verdict.acknowledged += 1
        _judge(verdict, rows, "http", id, expected[picture])


def judge_dicom(
    verdict: Verdict,
    rows: Rows,
    acknowledged: Mapping[str, int],
    expected: Sequence[Said],
    reports: Mapping[str, Sequence[str]],
) -> None:
    """Judge answers, and the reports that an archive received, by the SOP Instance UIDs of their images."""
    for uid, picture in acknowledged.items():
        verdict.acknowledged += 1
        ids = rows.by_name.get(("dicom", uid), [])
        if len(ids) != 1:
            verdict.count("twice" if ids else "lost", f"dicom {uid}: {len(ids)} rows")
            continue
        _judge(verdict, rows, "dicom", ids[0], expected[picture])
        different = set(reports.get(uid, ()))
        if len(different) != 1 and rows.states[ids[0]] == "answered":
            verdict.count(
                "twice" if different else "lost", f"dicom {uid}: {len(different)} different reports"
            )
    for uid in reports.keys() - acknowledged.keys():
        verdict.count("wrong", f"a report on {uid}, which nobody sent")


def judge_folder(
    verdict: Verdict,
    rows: Rows,
    acknowledged: Mapping[str, int],
    expected: Sequence[Said],
    folder: Path,
    *,
    only_ours: bool,
) -> None:
    """Judge answers beside images, rows of `answers.csv`, with `only_ours` that nothing else is there."""
    with (folder / "answers.csv").open(newline="") as file:
        table = Counter(row["path"] for row in csv.DictReader(file))
    for name, picture in acknowledged.items():
        verdict.acknowledged += 1
        # One that grew slowly may have been read before it was whole, and again when it was.
        ids = rows.by_name.get(("folder", name), [])
        answer = folder / f"{name}.json"
        if not ids or not answer.exists():
            verdict.count("lost", f"folder {name}: {len(ids)} rows, {answer.exists()=}")
            continue
        if len(ids) != 1:
            verdict.count("twice", f"folder {name}: {len(ids)} rows")
        if table[name] != len(ids):
            verdict.count("twice" if table[name] else "lost", f"answers.csv has {table[name]} rows of {name}")
        there = json.loads(answer.read_bytes())
        _judge(verdict, rows, "folder", there["id"], expected[picture])
        if there != rows.by_id.get(there["id"]):
            verdict.count("wrong", f"{answer.name} differs from the answer in the journal")
    if not only_ours:
        return
    for name in table.keys() - acknowledged.keys():
        verdict.count("wrong", f"answers.csv has a row of {name}, which nobody wrote")
    ours = {"answers.csv", *acknowledged, *(f"{name}.json" for name in acknowledged)}
    for path in folder.iterdir():
        if path.name not in ours:
            verdict.count("left_over", f"in the watch folder: {path.name}")


def judge_left_over(verdict: Verdict, rows: Rows, state: Path, *, only_ours: bool) -> None:
    """Judge that nothing waits, and that there is no file that no row needs.

    Without `only_ours`, deliveries may be put aside that others made impossible.
    """
    for id, state_of_it in rows.states.items():
        if state_of_it == "waiting":
            verdict.count("lost", f"{id} still waits")
    for id, outlet, state_of_it, reason in rows.deliveries:
        if state_of_it == "aside" and not only_ours:
            continue
        verdict.count("left_over", f"delivery of {id} by {outlet}: {state_of_it}: {reason}")
    for path in _files(state):
        aside = path.parent.name == "aside" and rows.states.get(path.name) == "aside"
        if not aside and not path.name.startswith(_OWN_FILES):
            verdict.count(
                "left_over", f"in the state: {path.relative_to(state)}, {path.stat().st_size} bytes"
            )


def _judge(verdict: Verdict, rows: Rows, door: str, id: str, expected: Said) -> None:
    answer = rows.by_id.get(id)
    if answer is None:
        verdict.count("lost", f"{door} {id} has no answer ({rows.states.get(id, 'no row')})")
    elif rows.states[id] == "aside":
        verdict.count("aside", f"{door} {id}: {answer['results'][0].get('reason')}")
    elif len(answer["results"]) != 1 or not is_as_expected(said(answer["results"][0]), expected):
        verdict.count("wrong", f"{door} {id}: {answer['results']} instead of {expected}")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
