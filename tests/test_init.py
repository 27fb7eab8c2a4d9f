"""`fedmedclip init` writes examples that work, with every setting and nothing else."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.observer import ObserverConfiguration
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.bundle.prompts import read_classes_toml
from fedmedclip.protocol.configuration import read_configuration
from tests import ROOT

STRUCTURES = {
    "site": SiteConfiguration,
    "aggregator": AggregatorConfiguration,
    "serve": ServeConfiguration,
    "observer": ObserverConfiguration,
}
READ_BY = {"observer": "status"}
# What has no default, or one that no TOML value can say, is shown by an example.
SHOWN = {
    "bytes_per_day",
    "bytes_in_all",
    "rounds_in_all",
    "epsilon", "releases", "heads", "threads", "token", "token_file", "client_ca_file", "output",
    "peers", "site", "reports", "destinations",
    "feature_store", "uplink_codec", "downlink_codec", "bound", "aggregator_key", "port",
    "ca_file", "certificate_file", "key_file",
    "username", "password_file", "client_id", "proxy", "sites_per_round", "buffer_size",
    "stop_when_flat", "key", "roster",
    "rule", "authority_passphrase_file", "adaptation_weight", "group_column", "groups",
}  # fmt: skip


def init(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedmedclip", "init", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_file_is_accepted_as_it_is(tmp_path: Path, name: str) -> None:
    done = init(name, tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / f"{name}.toml"
    read_configuration(path, STRUCTURES[name])
    assert f"fedmedclip {READ_BY.get(name, name)} --config {path}" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_setting_stands_in_it_with_its_default_and_nothing_else(tmp_path: Path, name: str) -> None:
    init(name, tmp_path)
    text = (tmp_path / f"{name}.toml").read_text()
    optional = tomllib.loads(re.sub(r"(?m)^# (?=[\w-]+ = |\[)", "", text))
    structure = STRUCTURES[name]
    tables = {field.name: field.type for field in msgspec.structs.fields(structure)}
    if "sites" in tables:
        assert list(optional.pop("sites")) == ["hospital-a"]
        tables |= {"training": TrainingSettings}
        del tables["sites"]
    assert optional.keys() == tables.keys()
    for table, settings in tables.items():
        # A table that may be left out is one of its settings, or None.
        settings = next((each for each in get_args(settings) if each is not type(None)), settings)
        fields = {field.name: field for field in msgspec.structs.fields(settings)}
        assert optional[table].keys() == fields.keys()
        for setting, value in optional[table].items():
            if not fields[setting].required and setting not in SHOWN:
                default = fields[setting].default
                if isinstance(value, list):
                    factory = fields[setting].default_factory
                    default = list(default if factory is msgspec.NODEFAULT else factory())
                assert value == default, f"[{table}] {setting}"


def test_options_fill_in_and_keep_the_comments_in_place(tmp_path: Path) -> None:
    (tmp_path / "configuration").mkdir()
    path = tmp_path / "configuration" / "a.toml"
    done = init(
        *("site", path, "--federation", "f-1", "--name", "h", "--broker", "[::1]:8883"),
        *("--data", 'im"ages\\', "--bundle", tmp_path / "bundle"),
    )
    assert done.returncode == 0, done.stderr
    found = read_configuration(path, SiteConfiguration)
    assert (found.site.federation, found.site.name) == ("f-1", "h")
    assert (found.broker.host, found.broker.port) == ("::1", 8883)
    assert found.site.bundle == str(tmp_path / "bundle")
    assert (path.parent / found.site.data).resolve() == ROOT / 'im"ages\\'
    example = (ROOT / "deploy" / "site.toml").read_text().splitlines()
    changed = [line for line in path.read_text().splitlines() if line not in example]
    assert len(changed) == 6
    assert 'name = "h"                         # 1 to 32' in "\n".join(changed)


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_text("mine")
    done = init("classes", path)
    assert done.returncode == 2
    assert "exists; replace it with --force" in done.stderr
    assert path.read_text() == "mine"
    assert init("classes", path, "--force").returncode == 0
    assert list(read_classes_toml(path).classes) == ["glioma_tumor", "no_tumor"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["site", "--name", "Hospital A"], "site name 'Hospital A' is not usable"),
        (["aggregator", "--broker", "here"], "--broker is 'here'; expected host:port"),
        (["site", "no/such/folder/site.toml"], "there is no folder"),
        (["sit"], "did you mean 'site'?"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    if len(arguments) == 3:
        arguments = [*arguments, str(tmp_path)]
    done = init(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
