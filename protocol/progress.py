"""What long work says where nobody watches a bar: every 30 s a line, how much is done and what is left."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from fedmedclip.protocol.console import TIME_FORMAT
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip")

SECONDS_BETWEEN_LINES = 30.0


class Report(Protocol):
    """Takes how much is done of how much, 0 where that is not known, and what is being done, "" as before."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Note it; cheap enough for every image."""


@contextmanager
def progress_lines(
    description: str, seconds: float | None = None, say: Callable[[str], None] | None = None
) -> Iterator[Report]:
    """Give the function to report to, and say every 30 s, or `seconds`, where the work stands.

    A step that takes longer than that is spoken of too. Work that is done before says nothing, so that quick
    commands are silent. Without `say`, a line goes to the log where there is one, else to standard error.
    """
    state = _State(description)
    between = SECONDS_BETWEEN_LINES if seconds is None else seconds
    spoken, ended = say or _say, threading.Event()

    def speak() -> None:
        while not ended.wait(between):
            spoken(state.line())

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield state.report
    finally:
        ended.set()
        thread.join()


def duration(seconds: float) -> str:
    """Return a duration as a person says it: 42 s, 12 min, 3.5 h, 2.1 days."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if unit == "h" else f"{value:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


class _State:
    """How far the work is; `first` is where it stood when it first reported, which costs no time."""

    def __init__(self, description: str) -> None:
        self._what = description
        self._started = time.monotonic()
        self._first: tuple[float, int] | None = None
        self._done = self._total = 0

    def report(self, done: int, total: int, what: str = "") -> None:
        if what and what != self._what:
            self._what, self._first = what, None
        if self._first is None:
            self._first = (time.monotonic(), done)
        self._done, self._total = done, total

    def line(self) -> str:
        now = time.monotonic()
        line = f"{self._what}: {self._done} of {self._total} done" if self._total else f"{self._what}"
        line += f", {duration(now - self._started)} so far"
        since, before = self._first or (now, 0)
        if not self._total or self._done <= before or now <= since:
            return line
        rate = (self._done - before) / (now - since)
        each = f"{rate:.3g} a second" if rate >= 1 else f"{60 * rate:.2g} a minute"
        return f"{line}, {each}, about {duration((self._total - self._done) / rate)} left"


def _say(line: str) -> None:
    if log.handlers:
        log.info("%s", line, extra={"event": "work.progress"})
    else:
        print(f"{time.strftime(TIME_FORMAT)} {visible(line)}", file=sys.stderr, flush=True)
