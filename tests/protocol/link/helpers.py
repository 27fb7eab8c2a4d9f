"""What the tests of the MQTT link share."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from fedmedclip.protocol.link.link import Event, Link, LinkSettings, Message
from fedmedclip.simulation.processes.brokers import BrokerProcess

PATIENCE = 30.0
EventKind = TypeVar("EventKind", bound=Event)
_numbers = itertools.count()


def unique(name: str) -> str:
    """A client identifier or topic level that no other test uses on the shared broker."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


def settings_for(broker: BrokerProcess, **changes: Any) -> LinkSettings:
    values = {
        "host": broker.host,
        "port": broker.port,
        "first_retry_seconds": 0.1,
        "longest_retry_seconds": 0.4,
    }
    return LinkSettings(**(values | changes))


def open_link(
    broker: BrokerProcess, client_id: str | None = None, will: Message | None = None, **changes: Any
) -> Link:
    return Link(settings_for(broker, **changes), client_id=client_id or unique("client"), will=will)


def write_accounts(folder: Path, *users: str) -> Path:
    """Write Mosquitto's password file, where names are the passwords, and a password file for each user."""
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    for user in users:
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, user], check=True)
        (folder / user).write_text(user)
    return passwords


def wait_for(
    link: Link, kind: type[EventKind], matches: Callable[[EventKind], bool] = lambda event: True
) -> EventKind:
    """Return the next event of a kind; others are passed over."""
    passed = []
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        event = link.next_event(0.5)
        if isinstance(event, kind) and matches(event):
            return event
        if event is not None:
            passed.append(event)
    raise AssertionError(f"no {kind.__name__} within {PATIENCE} s, but {passed}")


def quiet(link: Link, kind: type[Event], seconds: float = 0.5) -> bool:
    """True when no event of the kind comes for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if isinstance(link.next_event(0.1), kind):
            return False
    return True


def start_client_process(broker: BrokerProcess, *arguments: str) -> subprocess.Popen[str]:
    """Run `client_process.py`, which prints a line per event."""
    script = Path(__file__).with_name("client_process.py")
    return subprocess.Popen(
        [sys.executable, str(script), broker.host, str(broker.port), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
