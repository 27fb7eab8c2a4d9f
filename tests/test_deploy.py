"""The example files in deploy/ are real: they decode, and name every setting there is."""

from pathlib import Path

import pytest

from aggregator.configuration import AggregatorConfiguration
from edge_client.site_configuration import SiteConfiguration
from edge_client.training_settings import TrainingSettings
from protocol.configuration import read_configuration
from protocol.errors import InvalidInputError

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


@pytest.mark.parametrize(
    ("name", "structure"), [("aggregator.toml", AggregatorConfiguration), ("site.toml", SiteConfiguration)]
)
def test_examples_decode_and_name_every_setting(name, structure):
    configuration = read_configuration(DEPLOY / name, structure)
    text = (DEPLOY / name).read_text()
    for table in structure.__struct_fields__:
        settings = getattr(configuration, table)
        if table == "broker" and name == "site.toml":
            continue
        for setting in getattr(settings, "__struct_fields__", ()):
            assert setting in text, f"{name} does not show {table}.{setting}"


def test_the_example_shows_every_training_setting():
    text = (DEPLOY / "aggregator.toml").read_text()
    missing = [name for name in TrainingSettings.__struct_fields__ if name not in text and name != "threads"]
    assert not missing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[federation\n", "configuration .*aggregator.toml"),
        ("[federation]\nname = 'x'\nbundle = 'b'\nrounds = 0\n", r"rounds"),
        ("[federation]\nname = 'x'\nbundle = 'b'\nrounds = 3\nround = 4\n", "round"),
        ("[federation]\nname = 'x'\nrounds = 3\n", "bundle"),
        ("[federation]\nname='x'\nbundle='b'\nrounds=3\n[broker]\nhost='mqtt://x'\n", "without mqtt://"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "aggregator.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_configuration(path, AggregatorConfiguration)
    assert "aggregator.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
