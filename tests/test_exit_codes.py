"""Exit codes are what the reference says, and real commands give them."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generators.commands import commands
from fedmedclip.protocol.exit_codes import MEANINGS, OF_COMMANDS, ExitCode
from tests import ROOT

COMMAND = Path(sys.executable).parent / "fedmedclip"
PAGE = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")

# A command that ends as the name says, or waits for signals.
ENDING = """
import errno, sys, time
from fedmedclip import command
from fedmedclip.protocol.errors import FullDiskError, InvalidInputError

@command.app.command("ending")
def ending(how: str) -> None:
    try:
        print("ready", flush=True)
        if how == "full":
            raise FullDiskError("no space for site.db")
        if how == "no-space":
            raise OSError(errno.ENOSPC, "No space left on device", "site.db")
        if how == "mistake":
            raise InvalidInputError("a setting is wrong")
        if how == "fault":
            raise AssertionError("this is a bug")
        time.sleep(60)
    finally:
        if how == "stubborn":
            print("leaving", flush=True)
            time.sleep(60)

sys.argv[0] = "fedmedclip"
command.main()
"""


def rows(heading):
    """Return the cells of the rows of the table below a heading."""
    table = PAGE.partition(heading)[2].partition("\n## ")[0]
    return [row.strip("| ").split(" | ") for row in re.findall(r"^\| [`\d].*$", table, re.MULTILINE)]


def test_the_reference_says_what_the_codes_mean():
    assert rows("# Exit codes") == [
        [str(code.value), code.name.lower(), meaning] for code, meaning in MEANINGS.items()
    ]
    assert rows("## Where a command has an answer in its code") == [
        [f"`{command}`", str(code.value), meaning]
        for command, meanings in OF_COMMANDS.items()
        for code, meaning in meanings.items()
    ]
    assert set(MEANINGS) == set(ExitCode)


def test_a_command_with_codes_of_its_own_exists():
    assert set(OF_COMMANDS) - {path for path, _ in commands()} == set()


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("full", ExitCode.PASSING, "fedmedclip: no space for site.db"),
        ("no-space", ExitCode.PASSING, f"fedmedclip: site.db: {os.strerror(errno.ENOSPC)}"),
        ("mistake", ExitCode.MISTAKE, "fedmedclip: a setting is wrong"),
        ("fault", ExitCode.ATTENTION, "AssertionError: this is a bug"),
    ],
)
def test_an_error_has_its_code(how, code, words):
    done = subprocess.run([sys.executable, "-c", ENDING, "ending", how], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (code, words)
    assert (len(done.stderr.splitlines()) == 1) is (how != "fault")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_in_order_and_a_second_at_once(number):
    with subprocess.Popen(
        [sys.executable, "-c", ENDING, "ending", "waiting"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(20) == ExitCode.INTERRUPTED
    with subprocess.Popen(
        [sys.executable, "-c", ENDING, "ending", "stubborn"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "leaving\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == ExitCode.TERMINATED


def run(*arguments, **environment):
    return subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], ExitCode.FINE),
        (["site", "--config", "not-there.toml"], ExitCode.MISTAKE),
        (["no-such-command"], ExitCode.MISTAKE),
        (["predict", "--no-such-option"], ExitCode.MISTAKE),
    ],
)
def test_real_commands_give_them(arguments, code):
    assert run(*arguments).returncode == code


def test_where_the_log_is_json_the_last_line_is_so_too(tmp_path):
    configuration = tmp_path / "aggregator.toml"
    configuration.write_text("[federation]\nname = 1\n")
    done = run("aggregator", "--config", configuration, FEDMEDCLIP_LOG_FORMAT="json")
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert done.returncode == ExitCode.MISTAKE
    assert (found["event"], found["fields"]["code"]) == ("command.failed", 2)
    assert "aggregator.toml" in found["fields"]["reason"]
    assert (
        run("aggregator", "--config", configuration, FEDMEDCLIP_LOG_FORMAT="xml").returncode
        == ExitCode.MISTAKE
    )
