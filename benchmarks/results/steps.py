"""One command of a result: it runs, what it prints is kept, and what was finished is not run again."""

import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.results.inputs import ROOT
from fedmedclip.protocol.errors import FedMedClipError

Places = Mapping[str, Path | None]
"""What stands for DATA, MODEL, BUNDLE and OUT in a command."""

_PLACEHOLDERS = re.compile(r"\b(DATA|MODEL|BUNDLE|OUT)\b")
_LINES_OF_LOG = 15


class FailedError(FedMedClipError):
    """A result could not be made; what was finished of it lies in its folder."""


def run_step(name: str, step: int, command: str, places: Places, out: Path, work: Path) -> None:
    """Run one command; what is printed is kept as `step-N.txt`, errors in `step-N.log`."""
    printed, log = out / f"step-{step}.txt", out / f"step-{step}.log"
    if printed.exists():
        return
    started, processor = time.monotonic(), _processor_seconds()
    print(f"{name}: {command}", flush=True)
    words, environment = _words(command, places)
    partial = printed.with_suffix(".partial")
    try:
        with partial.open("wb") as output, log.open("ab") as errors:
            surrounding = _environment(work) | environment
            done = subprocess.run(words, cwd=ROOT, env=surrounding, stdout=output, stderr=errors, check=False)
    finally:
        _add_seconds(out, time.monotonic() - started, _processor_seconds() - processor)
    if done.returncode != 0:
        last = [*_last_lines(partial), *_last_lines(log)]
        print("\n".join(last), file=sys.stderr)
        why = f"; {last[-1]}" if last else ""
        raise FailedError(f"{name}: exit code {done.returncode} of: {command}{why} (more in {log})")
    partial.replace(printed)


def _words(command: str, places: Places) -> tuple[list[str], dict[str, str]]:
    """Return the words of a command with places filled in, and the settings that stand before it."""
    words = [_PLACEHOLDERS.sub(lambda found: str(places[found[1]]), word) for word in shlex.split(command)]
    environment = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "fedmedclip":
        words[:1] = [sys.executable, "-m", "fedmedclip"]
    return words, environment


def _environment(work: Path) -> dict[str, str]:
    """Return an environment in which a bundle is signed with a key of this work's own, as nobody else's."""
    environment = dict(os.environ)
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment | {
        "XDG_CONFIG_HOME": str((work / "keys").resolve()),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def _add_seconds(out: Path, seconds: float, processor_seconds: float) -> None:
    before, processor_before = seconds_taken(out)
    (out / "seconds").write_text(f"{before + seconds} {processor_before + processor_seconds}\n")


def seconds_taken(out: Path) -> tuple[float, float]:
    """Return what the commands took over all attempts, by the clock and of processor time."""
    file = out / "seconds"
    if not file.exists():
        return 0.0, 0.0
    seconds, processor_seconds = map(float, file.read_text().split())
    return seconds, processor_seconds


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_lines(path: Path) -> Sequence[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_LINES_OF_LOG:]
