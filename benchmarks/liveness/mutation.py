"""Would a test notice? Breaks the code that must not stand still, in one place at a time, and runs its tests.

    python -m benchmarks.liveness.mutation [--mutants 60] [--seed 1]
    python -m benchmarks.liveness.mutation aggregator/store.py --mutants 20

Mutants (see `mutants`) of the modules named, or of all in MODULES, are drawn by the seed; two runs with the
same seed and the same source draw the same. Each is laid into a copy of the repository, never into the tree
itself. First the tests that are named like its module run, then those of its room; the first failure kills
it, and so does a test that takes several times the processor time that it takes undisturbed. `--near` leaves
the room out, which is quicker while one writes tests; `--list` only says which mutants are drawn. The last
line is one JSON object; the exit code is 1 where fewer than 95 % are killed.
"""

import argparse
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.liveness.mutants import Mutant, drawn, mutants_of

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    *(f"aggregator/{name}.py" for name in (
        "coordinator", "run", "progress", "admission", "settling", "answers", "restoration", "steering",
        "round_logic", "intake", "members", "store", "uploads", "recovery", "requests", "global_head",
        "control",
    )),
    "protocol/envelope.py",
    "protocol/objects.py",
    "protocol/codecs/error_feedback.py",
    *(f"edge_client/site/{name}.py" for name in (
        "agent", "run", "plan_follower", "round_training", "draw", "application", "delivery", "proof",
        "head_follower", "state", "plans",
    )),
)  # fmt: skip
# No room's own: coordinator and agents play the whole protocol, without a broker.
WITH_EACH_OTHER = (
    "tests/simulation/federation/test_federation_logic.py",
    "tests/simulation/federation/test_policies.py",
)
KILLED_SHARE = 0.95
# A mutant's tests may take so many times the processor time of the undisturbed ones, and some seconds more.
_TIMES, _SECONDS_MORE = 3, 10
# A test that waits for ever uses no processor.
_LONGEST_SECONDS = 600
_LARGEST_BYTES = 8 << 30
_OPTIONS = ("-x", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=ci")
# Loaded once, before the tests' processes are made: none of what may be mutated.
_PRELOADED = ("numpy", "hypothesis.strategies", "msgspec", "zstandard", "paho.mqtt.client",
              "cryptography.hazmat.primitives.asymmetric.ed25519", "sqlite3", "asyncio")  # fmt: skip

Tests = tuple[str, ...]


def mirrors_of(module: str, *, near: bool) -> list[Tests]:
    """Return the tests of a module: those named like it, by the first word, and of its room unless `near`."""
    path = Path(module)
    folder = Path("tests") / path.parent
    pattern = f"test_{path.stem.split('_')[0]}*.py"
    own = sorted(str(file.relative_to(ROOT)) for file in (ROOT / folder).glob(pattern))
    # Most of what lies below `protocol` is other rooms'.
    wide: list[Tests] = [] if path.parent == Path("protocol") else [(str(folder),), WITH_EACH_OTHER]
    return [tuple(own), *([] if near else wide)] if own else wide


@dataclass
class Copy:
    """A copy of the repository in `folder`, whose packages are imported before those of the installation."""

    folder: Path
    _processor_seconds: dict[Tests, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        for room in ("aggregator", "edge_client", "export", "protocol", "simulation"):
            (self.folder / "fedmedclip" / room).symlink_to(self.folder / room)
        for name in _PRELOADED:
            importlib.import_module(name)

    def notice(self, mutant: Mutant, chosen: list[Tests]) -> str:
        """Return which test notices a mutant, or that it takes too long; empty when none does."""
        file = self.folder / mutant.module
        original = file.read_text()
        for tests in chosen:
            longest = self._undisturbed_seconds(tests) * _TIMES + _SECONDS_MORE
            try:
                self._write(file, mutant.source)
                notice, _ = self._run(tests, longest)
            finally:
                self._write(file, original)
            if notice:
                return notice
        return ""

    def _write(self, file: Path, source: str) -> None:
        file.write_text(source)
        # One of the same length, written in the same second, would pass for what these were compiled from.
        for compiled in (file.parent / "__pycache__").glob(f"{file.stem}.*"):
            compiled.unlink()

    def _undisturbed_seconds(self, tests: Tests) -> float:
        if tests not in self._processor_seconds:
            notice, seconds = self._run(tests, _LONGEST_SECONDS)
            if notice:
                raise SystemExit(f"{notice} fails without any mutant: mend that first")
            self._processor_seconds[tests] = seconds
        return self._processor_seconds[tests]

    def _run(self, tests: Tests, processor_seconds: float) -> tuple[str, float]:
        """Run tests in a process of their own; return what they notice, and the seconds of a processor."""
        output = self.folder / "output"
        process = os.fork()
        if process == 0:
            self._become_tests(tests, int(processor_seconds), output)
        _, status, usage = os.wait4(process, 0)
        code = os.waitstatus_to_exitcode(status)
        seconds = usage.ru_utime + usage.ru_stime
        if code == 0:
            return "", seconds
        if -code in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL):
            return "timed out", seconds
        text = output.read_text(errors="replace")
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
        return failed[1] if failed else f"ended with code {code}: {text[-300:]}", seconds

    def _become_tests(self, tests: Tests, processor_seconds: int, output: Path) -> None:
        """Run pytest in this process, which is a copy of the one that makes the mutants, and end it."""
        code = 1
        try:
            file = os.open(output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (processor_seconds, processor_seconds + 5))
            resource.setrlimit(resource.RLIMIT_AS, (_LARGEST_BYTES, _LARGEST_BYTES))
            signal.alarm(_LONGEST_SECONDS)
            os.chdir(self.folder)
            os.environ["PYTHONPATH"] = str(self.folder)
            sys.path[:] = [str(self.folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
            for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
                del sys.modules[name]
            code = pytest.main([*_OPTIONS, *tests])
            sys.stdout.flush()
        finally:
            os._exit(code)


def main() -> int:
    """Draw the mutants, try each and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="a path, such as aggregator/store.py")
    parser.add_argument("--mutants", type=int, default=60, help="how many to draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--near", action="store_true", help="only run the tests that are named like the module"
    )
    parser.add_argument("--list", action="store_true", help="only say which are drawn")
    arguments = parser.parse_args()
    every: list[Mutant] = []
    for module in arguments.modules or MODULES:
        every += mutants_of(module, (ROOT / module).read_text())
    chosen = drawn(every, arguments.mutants, arguments.seed)
    print(f"{len(chosen)} of {len(every)} mutants, seed {arguments.seed}", flush=True)
    if arguments.list:
        print("\n".join(map(str, chosen)))
        return 0
    survived = []
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = Copy(Path(folder))
        for mutant in chosen:
            started = time.monotonic()
            notice = copy.notice(mutant, mirrors_of(mutant.module, near=arguments.near))
            survived += [] if notice else [str(mutant)]
            seconds = time.monotonic() - started
            print(f"{mutant}: {f'killed by {notice}' if notice else 'SURVIVED'}, {seconds:.1f} s", flush=True)
    killed = len(chosen) - len(survived)
    print(json.dumps({"mutants": len(chosen), "killed": killed, "survived": survived}))
    return int(killed < KILLED_SHARE * len(chosen))


if __name__ == "__main__":
    sys.exit(main())
