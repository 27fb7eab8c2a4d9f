"""How a command speaks to its operator and how it is told to stop."""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from types import FrameType, TracebackType

from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip")

TIME_FORMAT = "%Y-%m-%d %H:%M:%S%z"
"""Local time with its distance from UTC: "2026-03-29 02:30:00+0100"."""

LOG_FORMAT_VARIABLE = "FEDMEDCLIP_LOG_FORMAT"
"""Environment variable that says the format of the log where no option does."""
LOG_FORMAT_HELP = "Lines of the log: text for people, or json, one object a line with the event's identifier."


class LogFormat(StrEnum):
    """How lines of the log are written."""

    TEXT = "text"
    JSON = "json"


_last_acts: list[Callable[[], None]] = []


class _OneLineFormatter(logging.Formatter):
    """Formats a message so that no name in it begins a line of its own, or moves the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return visible(super().formatMessage(record))


def log_to_terminal(verbose: bool, log_format: LogFormat = LogFormat.TEXT) -> None:
    """Write log lines with local time and its zone to standard error; with `verbose`, debugging ones too.

    As JSON, what libraries warn of and the tracebacks of faults are written so too: whoever reads standard
    error finds one object a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(log_format))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    if log_format is LogFormat.JSON and logging.lastResort is not None:
        logging.lastResort.setFormatter(handler.formatter)
        logging.captureWarnings(True)
        logging.getLogger("py.warnings").addHandler(handler)
        sys.excepthook = _log_fault
        threading.excepthook = _log_fault_of_thread


def _log_fault(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    fault = kind() if error is None else error
    log.critical("a fault of this software (%s)", kind.__name__, exc_info=(kind, fault, traceback))


def _log_fault_of_thread(fault: threading.ExceptHookArgs) -> None:
    if fault.exc_type is not SystemExit:
        _log_fault(fault.exc_type, fault.exc_value, fault.exc_traceback)


def logs_json() -> bool:
    """Whether the log of this process is JSON."""
    from fedmedclip.protocol.json_log import JsonFormatter

    return any(isinstance(handler.formatter, JsonFormatter) for handler in log.handlers)


def _formatter(log_format: LogFormat) -> logging.Formatter:
    if log_format is LogFormat.TEXT:
        return _OneLineFormatter("%(asctime)s %(levelname)-7s %(message)s", TIME_FORMAT)
    # A terminal has no use for the table of events.
    from fedmedclip.protocol.json_log import JsonFormatter
    from fedmedclip.protocol.log_events import log_events

    return JsonFormatter(log_events())


def print_what_the_terminal_lacks_as_escapes() -> None:
    """Let a character that standard output cannot show cost that character, not the line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within the block, let SIGTERM (systemd, containers) do as Ctrl-C does: raise KeyboardInterrupt.

    Whoever asks twice, by either signal, does not want to wait: the second ends the process at once, even
    within a long computation, after no more than what `at_a_forced_end` was given.
    """
    ignores_interrupts = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signals = (signal.SIGTERM,) if ignores_interrupts else (signal.SIGTERM, signal.SIGINT)
    asked, told = os.pipe()
    os.set_blocking(told, False)
    threading.Thread(target=_end_at_the_second, args=(asked, frozenset(signals)), daemon=True).start()
    # The interpreter writes the number of each signal to it when that comes, whatever it is doing.
    pipe_before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    interrupt = _interrupter()
    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe_before)
        os.close(told)


@contextmanager
def at_a_forced_end(act: Callable[[], None]) -> Iterator[None]:
    """Within the block, have `act`, quick and unfailing, done before a second signal ends the process."""
    _last_acts.append(act)
    try:
        yield
    finally:
        _last_acts.remove(act)


def _interrupter() -> Callable[[int, FrameType | None], None]:
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Once: a second one, raised while the first is dealt with, would end in a traceback.
        nonlocal asked
        if not asked:
            asked = True
            raise KeyboardInterrupt

    return interrupt


def _end_at_the_second(asked: int, signals: frozenset[int]) -> None:
    seen = 0
    with open(asked, "rb", buffering=0) as pipe:
        while numbers := pipe.read(64):
            for number in numbers:
                seen += number in signals
                if seen == 2:
                    for act in tuple(_last_acts):
                        act()
                    os._exit(128 + number)
