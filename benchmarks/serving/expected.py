"""What the doors have to answer: what `fedmedclip predict` answers, from the same files."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LAST_DIGIT = 2.5e-6

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


def is_as_expected(found: Said, expected: Said) -> bool:
    """Whether two say the same, but for the last digit: 16 images at once may round otherwise than one."""
    return (
        found[:2] == expected[:2]
        and dict(found[2]).keys() == dict(expected[2]).keys()
        and all(abs(value - dict(expected[2])[name]) < _LAST_DIGIT for name, value in found[2])
    )


def names(count: int, ending: str) -> Sequence[str]:
    """Return so many names of files, in order."""
    return [f"{number:03}.{ending}" for number in range(count)]
