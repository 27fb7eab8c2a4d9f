"""The Containerfile, as its own trial reads it; `deploy/try_containerfile.py` takes minutes, and root."""

import importlib.util
import shlex
import sys

import pytest

from tests import ROOT

SPECIFICATION = importlib.util.spec_from_file_location(
    "try_containerfile", ROOT / "deploy/try_containerfile.py"
)
trial = importlib.util.module_from_spec(SPECIFICATION)
sys.modules["try_containerfile"] = trial
SPECIFICATION.loader.exec_module(trial)

TEXT = (ROOT / "deploy" / "Containerfile").read_text()


@pytest.fixture(scope="module")
def stages():
    return trial.stages_of(TEXT)


def test_a_container_serves_without_root(stages):
    settings = stages[-1].settings
    user, group = settings["USER"].split(":")
    assert int(user) == int(group) > 0
    assert settings["VOLUME"] == settings["WORKDIR"] == stages[-1].environment["HOME"]
    command = trial.argv(settings["ENTRYPOINT"]) + trial.argv(settings["CMD"])
    assert command == ["fedmedclip", "serve", "--config", "/etc/fedmedclip/serve.toml"]
    assert trial.argv(settings["HEALTHCHECK"].partition("CMD ")[2])[:3] == ["fedmedclip", "serve", "health"]
    assert settings["STOPSIGNAL"] == "SIGTERM"


def test_what_builds_stays_behind(stages):
    assert len(stages) == 2
    last = [words for instruction, words, _ in stages[-1].steps if instruction == "COPY"]
    assert last == ["--from=build /opt/fedmedclip /opt/fedmedclip"]
    assert "pip" not in TEXT.partition("\nFROM")[2].partition("\nFROM")[2]


def test_all_that_is_copied_is_there_and_all_of_the_sources_are_copied(stages):
    copied = [
        source
        for instruction, words, _ in stages[0].steps
        if instruction == "COPY"
        for source in shlex.split(words)[:-1]
    ]
    assert all((ROOT / source).exists() for source in copied)
    rooms = {"fedmedclip", "aggregator", "edge_client", "export", "protocol", "simulation"}
    assert rooms | {"pyproject.toml", "README.md", "LICENSE"} <= set(copied)


def test_an_instruction_that_the_trial_would_pass_over_is_an_error():
    with pytest.raises(ValueError, match="not known here"):
        trial.stages_of("FROM debian\nADD https://example.org/ /")
