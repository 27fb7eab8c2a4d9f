"""A process that takes inputs, and what the one that watches it sees: it may crash, hang or eat memory."""

import logging
import mmap
import multiprocessing
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from benchmarks.fuzz.instrumentation import instrument
from benchmarks.fuzz.mutations import LONGEST
from benchmarks.fuzz.target import Target
from benchmarks.fuzz.watch import Finding, Watch

HANG_SECONDS = 10.0
"""Of processor time without a next input: then the worker is ended."""
_START_SECONDS = 60.0
# Beside what the process has when it begins; an allocation beyond it is a MemoryError, which nobody promised.
_ADDRESS_SPACE_BYTES = 2 << 30
_TRACED_EVERY = 64
_LONGEST_OF_ATHERIS = 1 << 16
_TIMES = (1, 1, 1, 2, 3, 5)
_EXIT_FINISHED, _EXIT_CRASHED = 0, 1


@dataclass(frozen=True)
class Report:
    """What a worker did. `slowest` in seconds, `largest` in bytes."""

    inputs: int
    slowest: float
    largest: int
    crash: Finding | None


class Worker:
    """Runs one engine on one target until so many inputs were taken, in a process of its own."""

    def __init__(self, target: Target, inputs: int, seed: str, engine: str, folder: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._target = target
        self._current = mmap.mmap(-1, LONGEST + 8)
        self._count: Synchronized[int] = context.Value("q", 0)
        self._slowest: Synchronized[float] = context.Value("d", 0.0)
        self._largest: Synchronized[int] = context.Value("q", 0)
        self._process = context.Process(target=self._run, args=(inputs, seed, engine, folder))
        self._process.start()

    def finish(self) -> Report:
        """Wait for the end, or make one where an input takes too long."""
        seen, since, crash = -1, 0.0, None
        while self._process.is_alive():
            self._process.join(0.5)
            used = self._cpu_seconds()
            if self._count.value != seen:
                seen, since = self._count.value, used
            elif used - since > (HANG_SECONDS if seen else _START_SECONDS):
                self._process.kill()
                self._process.join()
                crash = self._finding("hang", f"more than {HANG_SECONDS:.0f} s of processor time")
        code = self._process.exitcode
        if crash is None and code != _EXIT_FINISHED:
            name = signal.Signals(-code).name if code is not None and code < 0 else str(code)
            crash = self._finding("crash", f"the process ended with {name}")
        return Report(self._count.value, self._slowest.value, self._largest.value, crash)

    def _finding(self, kind: str, details: str) -> Finding:
        size = int.from_bytes(self._current[:8], "little")
        data = self._current[8 : 8 + size]
        return Finding(kind, f"{kind} {self._count.value}", details, data)

    def _cpu_seconds(self) -> float:
        """What the worker has computed: the clock on the wall would take a busy machine for a hang."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _run(self, inputs: int, seed: str, engine: str, folder: Path) -> None:
        _be_quiet(folder / "logs" / f"{self._target.name}.txt")
        code = _EXIT_CRASHED
        try:
            seeds = self._target.seeds()
            with TemporaryDirectory() as scratch:
                watch = Watch(self._target, self._target.prepare(Path(scratch)))
                for one in seeds:
                    self._take(one, watch, folder)
                _limit_memory()
                if engine == "atheris":
                    self._run_atheris(watch, seeds, inputs, seed, folder)
                else:
                    for data in mutants(self._target, seeds, inputs, seed):
                        self._take(data, watch, folder)
            code = _EXIT_FINISHED
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else _EXIT_FINISHED
        except BaseException:
            traceback.print_exc()
        # Nothing of the parent, whose threads are not here, is to be shut down.
        os._exit(code)

    def _run_atheris(self, watch: Watch, seeds: list[bytes], inputs: int, seed: str, folder: Path) -> None:
        import atheris

        corpus = folder / "corpus" / self._target.name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(seeds):
            (corpus / f"seed-{number}").write_bytes(one)
        for module in list(sys.modules.values()):
            if module.__name__.startswith(("fedmedclip.", "tomllib")):
                instrument(module, atheris.instrument_func)

        def mutate(data: bytes, most: int, number: int) -> bytes:
            draw = Random(number)
            return self._target.mutate(data, draw.choice(seeds), draw)[:most]

        # Half of the mutations are libFuzzer's own, which know what comparisons the code made.
        def custom(data: bytes, most: int, number: int) -> bytes:
            return mutate(data, most, number) if number % 2 else bytes(atheris.Mutate(data, most))

        options = {
            "runs": inputs,
            "max_len": _LONGEST_OF_ATHERIS,
            "seed": Random(seed).getrandbits(31),
            "verbosity": 0,
            # What takes too long or too much is found by the watch.
            "timeout": 3600,
            "rss_limit_mb": 0,
            "malloc_limit_mb": 0,
        }
        arguments = ["fuzz", str(corpus), *(f"-{name}={value}" for name, value in options.items())]
        atheris.Setup(
            arguments,
            lambda data: self._take(data, watch, folder),
            custom_mutator=custom,
            enable_python_coverage=True,
        )
        atheris.Fuzz()

    def _take(self, data: bytes, watch: Watch, folder: Path) -> None:
        data = data[:LONGEST]
        self._current[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
        traced = self._count.value % _TRACED_EVERY == 0
        if (found := watch.look(data, traced=traced)) is not None:
            keep(found, self._target.name, folder)
        self._count.value += 1
        self._slowest.value, self._largest.value = watch.slowest, watch.largest


def mutants(target: Target, seeds: list[bytes], count: int, seed: str) -> Iterable[bytes]:
    """Yield hostile inputs, the same ones for the same seed."""
    draw = Random(f"{target.name}:{seed}")
    for _ in range(count):
        data = draw.choice(seeds)
        for _ in range(draw.choice(_TIMES)):
            data = target.mutate(data, draw.choice(seeds), draw)
        yield data[:LONGEST]


def keep(found: Finding, target: str, folder: Path) -> None:
    """Write the input and what came of it, one file of each for every fault: the shortest input."""
    path = folder / "findings" / target / f"{found.name}.bin"
    if path.exists() and path.stat().st_size <= len(found.data):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.data)
    path.with_suffix(".txt").write_text(f"{found.cause}\n{found.details}\n", errors="backslashreplace")


def _be_quiet(path: Path) -> None:
    """Let log lines be made, as a service makes them, and go nowhere; other words go into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())

    class Formatting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.getMessage()

    logger = logging.getLogger("fedmedclip")
    logger.handlers, logger.propagate = [Formatting()], False
    logger.setLevel(logging.INFO)
    warnings.simplefilter("ignore")


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _ADDRESS_SPACE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
