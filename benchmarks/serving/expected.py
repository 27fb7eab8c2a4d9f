"""What the doors have to answer: what `fedmedclip predict` answers, from the same files."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Said = tuple[str, str | None, tuple[tuple[str, float], ...]]
"""Outcome, label, and probabilities by class."""


def predicted(bundle: Path, folder: Path, contents: Mapping[str, bytes]) -> list[Said]:
    """Write files into a new folder; return what `fedmedclip predict` says of each, in their order."""
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    command = [sys.executable, "-m", "fedmedclip", "predict", "--bundle", str(bundle), str(folder)]
    done = subprocess.run(
        [*command, "--format", "jsonl", "--provenance", "none", "--insecure"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    by_name = {Path(row["path"]).name: said(row) for row in rows}
    return [by_name[name] for name in contents]


def said(result: Mapping[str, Any]) -> Said:
    """Return what a prediction, or a result of an answer, says."""
    probabilities = result.get("probabilities") or {}
    return result.get("outcome", "answered"), result.get("label"), tuple(sorted(probabilities.items()))


def names(count: int, ending: str) -> Sequence[str]:
    """Return so many names of files, in order."""
    return [f"{number:03}.{ending}" for number in range(count)]
