"""One input, watched: what it raised, how long the processor worked for it, and what memory it took."""

import hashlib
import time
import traceback
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.fuzz.target import Take, Target

SECONDS = 0.1
"""Of processor time, which one input may take."""
LONGEST_LINE = 4096
"""Characters of an error: it is one line, for a person or a log."""
_ROOT = Path(__file__).resolve().parents[2]
_TIMES_AGAIN = 5


@dataclass(frozen=True)
class Finding:
    """What is wrong with how an input was taken. Findings of one `cause` are one fault."""

    kind: str
    cause: str
    details: str
    data: bytes

    @property
    def name(self) -> str:
        """Return a file name, the same for all inputs that show this fault."""
        return f"{self.kind}-{hashlib.sha256(self.cause.encode()).hexdigest()[:12]}"


@dataclass
class Watch:
    """Hands inputs to a target's `take`, each of which may take `seconds` of processor time.

    `slowest` is in seconds, `largest` in bytes.
    """

    target: Target
    take: Take
    seconds: float = SECONDS
    slowest: float = 0.0
    largest: int = 0

    def look(self, data: bytes, *, traced: bool = False) -> Finding | None:
        """Take one input; return what is wrong with how it was taken. With `traced`, memory is measured."""
        if traced:
            tracemalloc.start()
        began = time.thread_time()
        try:
            found = self._taken(data)
        finally:
            elapsed = time.thread_time() - began
            if traced:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.largest = max(self.largest, peak)
        if found is not None:
            return found
        if traced:
            if peak > self.target.most_bytes:
                return Finding(
                    "memory", "memory", f"{peak >> 20} MiB for an input of {len(data)} bytes", data
                )
            return None
        if elapsed > self.seconds:
            # Another process may have disturbed this one: the shortest of some times counts.
            elapsed = min(elapsed, *self._again(data))
            if elapsed > self.seconds:
                return Finding("slow", "slow", f"{elapsed:.3f} s for an input of {len(data)} bytes", data)
        self.slowest = max(self.slowest, elapsed)
        return None

    def _again(self, data: bytes) -> Iterator[float]:
        for _ in range(_TIMES_AGAIN):
            began = time.thread_time()
            self._taken(data)
            yield time.thread_time() - began

    def _taken(self, data: bytes) -> Finding | None:
        try:
            self.take(data)
        except KeyboardInterrupt:
            raise
        except self.target.promised as error:
            return _bad_line(str(error), error.__traceback__, data)
        # A library in Rust may raise what is no Exception.
        except BaseException as error:
            place = _place_of(error.__traceback__)
            details = "".join(traceback.format_exception(error))
            return Finding("exception", f"{type(error).__name__} {place}", details[-6000:], data)
        return None


def _bad_line(line: str, trace: TracebackType | None, data: bytes) -> Finding | None:
    fault = ""
    if "\n" in line or "\r" in line:
        fault = "is more than one line"
    elif len(line) > LONGEST_LINE:
        fault = f"has {len(line)} characters"
    elif not line.strip():
        fault = "is empty"
    if not fault:
        return None
    place = _place_of(trace)
    return Finding("message", f"message {place}", f"the error {fault}, {place}: {line[:300]!r}", data)


def _place_of(trace: TracebackType | None) -> str:
    """Return the innermost line of our own code, without its number where that may change with the input."""
    place = "?"
    for frame, line in traceback.walk_tb(trace):
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(_ROOT) and ".venv" not in file.parts:
            place = f"{file.relative_to(_ROOT)}:{line}"
    return place
