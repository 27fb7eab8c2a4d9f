"""What is written for a broker: who may read it, and where it works."""

import json
import os
import pwd
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedmedclip.aggregator.authority import broker_files
from fedmedclip.aggregator.authority.access_rules import WantedAccess
from fedmedclip.aggregator.authority.broker_files import (
    BrokerPlace,
    configuration,
    find_plugin,
    reload_broker,
    write_broker_folder,
)
from fedmedclip.aggregator.authority.certificate_authority import create_authority
from fedmedclip.protocol.errors import InvalidInputError
from tests import ROOT

NOW = datetime(2030, 5, 1, tzinfo=UTC)
ELSEWHERE = BrokerPlace(plugin=Path("/opt/mosquitto/plugin.so"), user="broker", folder=Path("/srv/broker"))


@pytest.fixture
def authority(tmp_path):
    return create_authority(tmp_path / "authority", "brain-mri", "correct horse battery staple", NOW)


def write(folder, authority, place=ELSEWHERE):
    write_broker_folder(folder, authority, "brain-mri", ["broker.example.org"], NOW, place=place)


def test_who_may_read_what(tmp_path, authority):
    folder = tmp_path / "broker"
    write(folder, authority)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.iterdir()}
    private = {name for name, mode in modes.items() if mode == 0}
    assert private == {"broker-key.pem", "dynamic-security.json"}
    assert modes.keys() - private == {"mosquitto.conf", "broker.pem", "ca.pem", "crl.pem"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (client,) = json.loads((folder / "dynamic-security.json").read_text())["clients"]
    assert client["username"] == "aggregator"
    with pytest.raises(InvalidInputError, match="already"):
        write(folder, authority)


def test_it_may_lie_on_another_machine():
    lines = configuration(Path("/here"), ELSEWHERE).splitlines()
    assert "plugin /opt/mosquitto/plugin.so" in lines
    assert "user broker" in lines
    assert "crlfile /srv/broker/crl.pem" in lines
    assert not [line for line in lines if "/here" in line]


def test_it_runs_as_who_made_it_with_the_plugin_of_this_machine(mosquitto_installed):
    lines = configuration(Path("/here"), BrokerPlace(port=1234)).splitlines()
    assert f"user {pwd.getpwuid(os.geteuid()).pw_name}" in lines
    assert f"plugin {find_plugin()}" in lines
    assert "listener 1234" in lines


def test_a_machine_without_the_plugin_is_told_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(broker_files, "_PLUGIN_FOLDERS", (str(tmp_path),))
    with pytest.raises(InvalidInputError, match=r"apt install mosquitto.*--plugin PATH"):
        configuration(tmp_path, BrokerPlace())


@pytest.mark.parametrize("name", ["two\nlines", "ends with a blank "])
def test_a_folder_that_cannot_stand_in_the_configuration(tmp_path, authority, name):
    with pytest.raises(InvalidInputError, match="plain text"):
        write(tmp_path / name, authority, BrokerPlace(plugin=ELSEWHERE.plugin))
    assert not (tmp_path / name).exists()


def test_only_a_mosquitto_is_told_to_read_again(tmp_path):
    assert not reload_broker(tmp_path)
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / "mosquitto.pid").write_text(str(process.pid))
        assert not reload_broker(tmp_path)
        assert process.poll() is None
        process.kill()
    assert not reload_broker(tmp_path)


def test_its_limits_are_those_of_the_example():
    shared = {"persistence", "autosave_interval", "autosave_on_changes", "persistent_client_expiration"}
    shared |= {
        "max_queued_messages",
        "max_queued_bytes",
        "max_packet_size",
        "max_inflight_messages",
    }

    def settings_of(text):
        return dict(line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#")

    def limits(text):
        return {name: value for name, value in settings_of(text).items() if name in shared}

    example = limits((ROOT / "deploy" / "mosquitto.conf").read_text())
    lines = configuration(Path("/here"), ELSEWHERE).splitlines()
    assert not [line for line in lines if line.startswith("memory_limit")]
    assert limits(configuration(Path("/here"), ELSEWHERE)) == example
    assert example.keys() == shared


def test_who_is_a_member_already_is_in_the_first_rules(tmp_path, authority):
    write_broker_folder(
        tmp_path / "broker", authority, "brain-mri", ["localhost"], NOW,
        place=ELSEWHERE, wanted=WantedAccess(frozenset({"hospital-a"})),
    )  # fmt: skip
    rules = json.loads((tmp_path / "broker" / "dynamic-security.json").read_text())
    assert {client["username"] for client in rules["clients"]} == {"aggregator", "hospital-a"}
    assert not any(value for name, value in rules["defaultACLAccess"].items() if name != "unsubscribe")
