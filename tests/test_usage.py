"""What was typed wrongly is one line with the near name, and no help names a file of the repository."""

import subprocess
import sys

import pytest

from tests import ROOT

COMMANDS = [
    ["site"],
    ["aggregator"],
    ["export"],
    ["predict"],
    ["evaluate"],
    ["explain"],
    ["adapt"],
    ["calibrate"],
    ["reference"],
    ["deploy"],
    ["doctor"],
    ["demo"],
    ["init", "site"],
    ["init", "aggregator"],
    ["init", "classes"],
    ["bundle", "verify"],
    ["bench", "accuracy"],
    ["bench", "bandwidth"],
    ["bench", "newcomer"],
    ["bench", "robustness"],
]


def fedmedclip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedmedclip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("pedict", "No such command 'pedict'; did you mean 'predict'? (see fedmedclip --help)"),
        ("predict --bundl docs x", "No such option: --bundl"),
        ("predict --format cvs x", "did you mean 'csv'? (see fedmedclip predict --help)"),
        ("predict --bundle nowhere x", "--bundle nowhere: there is no such folder"),
        ("predict --bundle docs x", "--bundle docs: no bundle, for it has no manifest.json"),
        ("bundle show README.md", "BUNDLE README.md: is a file, not a folder"),
        ("site", "Missing option '--config' (see fedmedclip site --help)"),
        ("aggregator", "Missing option '--config' (see fedmedclip aggregator --help)"),
        ("site --config site.tml", "--config site.tml: there is no such file"),
        ("export --model m --classes nowhere --out x", "--classes nowhere: there is no such file or folder"),
        ("demo --broker mosquito", "did you mean 'mosquitto'?"),
        ("demo --method fedclp", "unknown method 'fedclp'; did you mean 'fedclip'?"),
        ("bench accuracy --out x --training nowhere", "--training nowhere: there is no such file"),
        ("bench accuracy --out README.md", "--out README.md: is a file, not a folder"),
    ],
)
def test_one_line_and_code_2(arguments: str, words: str) -> None:
    done = fedmedclip(*arguments.split())
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("group", [[], ["bundle"], ["init"]])
def test_a_group_alone_shows_its_help(group: list[str]) -> None:
    done = fedmedclip(*group)
    assert "Usage: " in done.stdout + done.stderr
    assert "NoArgs" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_no_file_that_an_installation_lacks(command: list[str]) -> None:
    done = fedmedclip(*command, "--help")
    assert done.returncode == 0
    for folder in ("deploy/", "docs/", "configs/"):
        assert folder not in done.stdout
