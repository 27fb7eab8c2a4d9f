"""The demo's processes: each a real `fedmedclip` command with its log in a file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedmedclip.protocol.console import at_a_forced_end
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.visible import visible

_STOP_SECONDS = 15.0


class ProcessFailedError(FedMedClipError):
    """A process of the demo ended with an error; the message has the last line of its log."""


@dataclass(frozen=True)
class Running:
    """A started process and where its output goes."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path


def run_command(name: str, arguments: list[str], logs: Path) -> None:
    """Run a `fedmedclip` sub-command to its end. Raises ProcessFailedError when it fails."""
    with running({name: arguments}, logs) as started:
        wait_for_all(started)


@contextmanager
def running(commands: dict[str, list[str]], logs: Path) -> Iterator[list[Running]]:
    """Start `fedmedclip` sub-commands side by side; whatever still runs at the end is stopped.

    At a forced end (`at_a_forced_end`) they are killed.
    """
    started: list[Running] = []

    def kill_all() -> None:
        for item in started:
            item.process.kill()

    with at_a_forced_end(kill_all):
        try:
            for name, arguments in commands.items():
                started.append(start_command(name, arguments, logs))
            yield started
        finally:
            _stop([item.process for item in started])


def wait_for_all(started: list[Running], interval: float = 0.1) -> None:
    """Return when every process has ended well. Raises ProcessFailedError as soon as one has not."""
    while not all_ended(started):
        time.sleep(interval)


def all_ended(started: list[Running]) -> bool:
    """Whether every process has ended well. Raises ProcessFailedError when one ended otherwise."""
    codes = [item.process.poll() for item in started]
    for item, code in zip(started, codes, strict=True):
        if code:
            lines = item.log_file.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise ProcessFailedError(
                f"{item.name} ended with code {code}: {visible(lines[-1])} (log: {item.log_file})"
            )
    return all(code is not None for code in codes)


def start_command(name: str, arguments: list[str], logs: Path) -> Running:
    """Start a `fedmedclip` sub-command in the background; its output is appended to `logs`/`name`.log."""
    logs.mkdir(parents=True, exist_ok=True)
    log_file = logs / f"{name}.log"
    # Several processes share the cores: spinning threads would slow each other down many times.
    threads = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedmedclip", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **threads},
            # A Ctrl-C at the terminal is for the demo, which then stops its processes in order.
            start_new_session=True,
        )
    return Running(name, process, log_file)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
