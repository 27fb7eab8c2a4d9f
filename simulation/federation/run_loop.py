"""What all benchmarks do alike: check options, run what is missing, say how to go on when stopped."""

import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from rich.console import Console

from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.progress import Report
from fedmedclip.protocol.state_folder import claim_folder
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.federation.federation import WORKING_PREFIX
from fedmedclip.simulation.federation.run_file import RunFile

Run = TypeVar("Run", bound=msgspec.Struct)
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Job(Generic[Run]):
    """A run by its name for people; `play` is given what to call after each of its rounds."""

    name: str
    rounds: int
    play: Callable[[Callable[[], None]], Run]


def run_missing(jobs: Mapping[Key, Job[Run]], runs: RunFile[Run, Key], out: Path, console: Console) -> None:
    """Run the jobs whose key `runs` does not hold; KeyboardInterrupt leaves the finished ones."""
    missing = [job for key, job in jobs.items() if key not in runs.runs]
    if len(missing) < len(jobs):
        console.print(
            f"{len(jobs) - len(missing)} of {len(jobs)} runs are done already",
            highlight=False,
            soft_wrap=True,
        )
    total, done = sum(job.rounds for job in missing), count(1)
    try:
        with progress_bar("rounds") as progress:
            for job in missing:
                runs.add(job.play(partial(_count, progress, done, total, job.name)))
    except KeyboardInterrupt:
        words = f"stopped; {visible(out)} keeps the finished runs: the same command goes on from there"
        console.print(words, markup=False, soft_wrap=True)
        raise


def _count(progress: Report, done: Iterator[int], total: int, name: str) -> None:
    progress(next(done), total, name)


@contextmanager
def claim_output(out: Path) -> Iterator[None]:
    """Hold the folder of results, which is made if needed, and remove what a killed run left there.

    Raises InvalidInputError for a file, or when another process holds it.
    """
    if out.exists() and not out.is_dir():
        raise InvalidInputError(f"output {out} is a file; give a folder with --out")
    with claim_folder(out):
        for left_behind in out.glob(f"{WORKING_PREFIX}*"):
            shutil.rmtree(left_behind)
        yield


def at_least_one(option: str, value: int | None) -> None:
    """Raise InvalidInputError for a number below 1; None is none given."""
    if value is not None and value < 1:
        raise InvalidInputError(f"{option} is {value}; give at least 1")
