"""How a long-running command speaks to its operator and how it is told to stop."""

import logging
import signal
import sys
from types import FrameType

log = logging.getLogger("fedmedclip")


def log_to_terminal(verbose: bool) -> None:
    """Write log lines with local time to standard error; with `verbose`, debugging ones too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.INFO)


def stop_cleanly_when_asked() -> None:
    """Make SIGTERM (systemd, containers) end the process as Ctrl-C does: by KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
