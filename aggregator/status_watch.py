"""A status that is read again and again: redrawn on a terminal, a line per change for programs."""

import sys
import time
from collections.abc import Callable

import msgspec
from rich.console import Console
from rich.live import Live
from rich.text import Text

from fedmedclip.aggregator.federation_status import FederationStatus
from fedmedclip.aggregator.status_table import in_table
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.visible import visible

EVERY_SECONDS = 2.0

GOES_ON, NEEDS_ATTENTION = 0, 1


def exit_code(status: FederationStatus) -> int:
    """Return 0 where the run goes on or is over as it should, 1 where somebody should look at it."""
    return NEEDS_ATTENTION if status.attention else GOES_ON


def as_json(status: FederationStatus) -> str:
    """Return the status as one line of JSON."""
    return msgspec.json.encode(status).decode()


def watch(
    read: Callable[[], FederationStatus],
    *,
    lines: bool,
    every_seconds: float = EVERY_SECONDS,
    looks: int | None = None,
) -> int:
    """Show the status until Ctrl-C, or `looks` times, and return the exit code of the last.

    With `lines` a line of JSON is printed for each change; what only grows with time is no change. Else the
    table is redrawn on a terminal, and elsewhere printed for each change. A look that fails is said, and the
    next one tried. The first one raises its FedMedClipError.
    """
    status = read()
    console = Console(highlight=False, soft_wrap=True)
    redraw = not lines and console.is_terminal
    shown: FederationStatus | None = None
    live = Live(in_table(status), console=console, auto_refresh=False) if redraw else None
    try:
        if live is not None:
            live.start(refresh=True)
        while True:
            if live is not None:
                live.update(in_table(status), refresh=True)
            elif without_times(status) != shown:
                shown = without_times(status)
                if lines:
                    print(as_json(status), flush=True)
                else:
                    console.print(in_table(status))
            looks = None if looks is None else looks - 1
            if looks == 0:
                return exit_code(status)
            time.sleep(every_seconds)
            try:
                status = read()
            except FedMedClipError as error:
                words = f"not read this time: {visible(str(error))}"
                if live is not None:
                    live.console.print(Text(words))
                else:
                    print(words, file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        return exit_code(status)
    finally:
        if live is not None:
            live.stop()


def without_times(status: FederationStatus) -> FederationStatus:
    """Return a status without what changes by itself as time goes by."""
    members = [
        msgspec.structs.replace(
            member, seconds=None, late_seconds=None if member.late_seconds is None else 0.0
        )
        for member in status.members
    ]
    return msgspec.structs.replace(
        status,
        members=members,
        round_seconds=None if status.round_seconds is None else 0.0,
        # Durations in words; what they are about is in the other fields.
        attention=[str(len(status.attention))],
        sent_bytes=0,
        received_bytes=0,
        traffic=[],
    )
