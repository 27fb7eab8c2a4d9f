"""Log lines that nobody can forge, with their zone; and an end at once for whoever asks twice."""

import logging
import re
import signal
import subprocess
import sys
import time

import pytest

from fedmedclip.protocol.console import log, log_to_terminal

# Leaving takes long, as it does where a broker does not answer.
STUBBORN = """
import hashlib, sys, time
from fedmedclip import command

@command.app.command("stubborn")
def stubborn(how: str) -> None:
    try:
        print("ready", flush=True)
        if how == "computing":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)
        time.sleep(60)
    finally:
        print("leaving", flush=True)
        time.sleep(60)

sys.argv[0] = "fedmedclip"
command.main()
"""


@pytest.fixture
def _handlers_as_before():
    before = list(log.handlers), log.level
    yield
    log.handlers, log.level = before


@pytest.mark.usefixtures("_handlers_as_before")
def test_a_line_of_the_log_is_one_line_with_its_zone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What pytest itself keeps of the log cannot be told to another process of a test run.
    monkeypatch.setattr(log, "propagate", False)
    log_to_terminal(verbose=False)
    name = "a\n2026-01-01 00:00:00+0000 INFO    forged\x1b[2J\udce9"
    logging.getLogger("fedmedclip.site").warning("skipped %s", name)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d{4} WARNING skipped a\\n2026", line)
    assert line.endswith(r"forged\x1b[2J\xe9")


@pytest.mark.parametrize("how", ["waiting", "computing"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
    ],
)
def test_the_second_signal_ends_at_once(how: str, first: int, second: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN, "stubborn", how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(first)
        if how == "waiting":
            assert process.stdout.readline() == "leaving\n"
        else:
            # Two that are pending together would count as one.
            time.sleep(0.5)
        process.send_signal(second)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + second
    assert errors == ""
