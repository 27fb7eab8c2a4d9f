"""What a command prints for people it prints for programs too, by --json; some do not, each for a reason."""

import json
import os
import time

import pytest
from PIL import Image
from typer.testing import CliRunner

from docs.generators.commands import commands
from fedmedclip.command import app
from fedmedclip.edge_client.site.state import SiteState
from tests.edge_client.conftest import write_tiny_bundle

SERVICE = "it runs until it is stopped; --log-format json is for programs"
PROMETHEUS = "it prints the format that Prometheus reads"
ONE_FILE = "it writes one text file, or prints it"
STEERING = "a sentence; control status --json has what it changed"
RESULTS = "it writes its results as JSON files"
WITHOUT = {
    "fedmedclip aggregator": SERVICE,
    "fedmedclip site": SERVICE,
    "fedmedclip serve": SERVICE,
    "fedmedclip join": SERVICE,
    "fedmedclip demo": "it shows a person what a federation is; its parts leave JSON in its folder",
    "fedmedclip control metrics": PROMETHEUS,
    "fedmedclip site metrics": PROMETHEUS,
    "fedmedclip init site": ONE_FILE,
    "fedmedclip init aggregator": ONE_FILE,
    "fedmedclip init serve": ONE_FILE,
    "fedmedclip init classes": ONE_FILE,
    "fedmedclip sbom": "it prints JSON",
    "fedmedclip control pause": STEERING,
    "fedmedclip control resume": STEERING,
    "fedmedclip control end": STEERING,
    "fedmedclip control add-rounds": STEERING,
    "fedmedclip control leave-out": STEERING,
    "fedmedclip control quarantine": STEERING,
    "fedmedclip control release": STEERING,
    "fedmedclip control rollback": STEERING,
    "fedmedclip bench bandwidth": RESULTS,
    "fedmedclip bench accuracy": RESULTS,
    "fedmedclip bench robustness": RESULTS,
    "fedmedclip bench newcomer": RESULTS,
}


def runs_by_itself(declaration):
    """Whether a command does something, and is not only a group of commands."""
    return not hasattr(declaration, "commands") or declaration.invoke_without_command


def test_every_command_has_json_or_a_reason_why_not():
    without = {
        path
        for path, declaration in commands()
        if runs_by_itself(declaration)
        and not any("--json" in parameter.opts for parameter in declaration.params)
    }
    assert without == set(WITHOUT)


@pytest.fixture(autouse=True)
def _own_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))


def printed(*arguments, code=0):
    """Return what a command prints for programs, which is one object and nothing else."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == code, (done.output, done.exception)
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_of_a_bundle(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle")
    shown = printed("bundle", "show", bundle.folder)
    assert (shown["sha256"], shown["signed_by"], shown["trusted"]) == (bundle.digest.hex(), None, False)
    assert shown["manifest"]["embedding_size"] == bundle.manifest.embedding_size
    signed = printed("bundle", "sign", bundle.folder)
    assert set(signed) == {"public_key", "signature"}
    assert printed("bundle", "show", bundle.folder)["signed_by"] == signed["public_key"]
    verified = printed("bundle", "verify", bundle.folder, "--key", signed["public_key"])
    assert verified["bundle"] == bundle.digest.hex()
    assert set(verified) == {"hashes", "signature", "self_test", "bundle"}


def test_of_predictions_and_an_evaluation(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle")
    images = tmp_path / "images"
    for name in bundle.manifest.class_names:
        (images / name).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(images / name / "planted.png")
    figures = printed("evaluate", images, "--bundle", bundle.folder, "--insecure")
    assert set(figures["classifiers"]) == {"zero_shot"}
    assert figures["images"] == len(bundle.manifest.class_names)
    done = CliRunner().invoke(
        app, ["predict", str(images), "--bundle", str(bundle.folder), "--insecure", "--json"]
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == figures["images"]
    assert all(answer["label"] in bundle.manifest.class_names for answer in answers)


def test_of_keys(tmp_path):
    key = "ab" * 32
    assert printed("trust") == {"trusted": {}}
    assert printed("trust", key, "--note", "the centre")["trusted"] is True
    assert printed("trust") == {"trusted": {key: "the centre"}}
    assert printed("trust", key, "--remove") == {"key": key, "trusted": False}


def test_of_a_service_that_does_not_run(tmp_path):
    configuration = tmp_path / "serve.toml"
    configuration.write_text('[serve]\nbundle = "bundle"\n')
    found = printed("serve", "health", "--config", configuration, code=1)
    assert found["answers"] is False
    assert "no service works with" in found["fault"]


def test_of_a_sites_backup(tmp_path):
    state = tmp_path / "site-state"
    state.mkdir()
    SiteState(state / "site.db").close()
    (state / "site.key").write_bytes(os.urandom(32))
    configuration = tmp_path / "site.toml"
    configuration.write_text(
        '[site]\nname = "north"\nfederation = "thorax"\ndata = "images"\nbundle = "bundle"\ninsecure = true\n'
        '[broker]\nhost = "127.0.0.1"\n'
    )
    backup = tmp_path / "backup"
    made = printed("site", "backup", backup, "--config", configuration)
    assert made == {"backup": str(backup), "files": ["site.db", "site.key"]}
    restored = printed("site", "restore", backup, "--config", configuration)
    assert restored["restored"] == str(state)
    assert restored["set_aside"].startswith(f"{state}/before-restore-")


def test_of_a_federation(tmp_path, monkeypatch):
    folder, passphrase = tmp_path / "thorax", tmp_path / "passphrase"
    passphrase.write_text("a passphrase that is long enough\n")
    passphrase.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    bundle = write_tiny_bundle(tmp_path / "bundle")
    founded = printed(
        "federation", "init", folder, "--name", "thorax", "--broker", "127.0.0.1",
        "--passphrase-file", passphrase, "--bundle", bundle.folder,
    )  # fmt: skip
    assert (founded["federation"], founded["folder"]) == ("thorax", str(folder))
    common = ("--folder", folder)
    invited = printed("federation", "invite", "north", *common, "--passphrase-file", passphrase)
    assert invited["site"] == "north"
    assert invited["expires"] > time.time()
    assert (tmp_path / invited["file"]).exists()
    refused = printed("federation", "refuse", "north", *common)
    assert refused == {"site": "north", "number": invited["number"], "taken_back": True}
    assert printed("federation", "renew", *common, "--passphrase-file", passphrase) == {"done": []}
    rotated = printed("federation", "rotate-key", *common)
    assert rotated["coordinator_key"] != founded["coordinator_key"]


def test_an_error_is_the_same_line_and_no_object(tmp_path):
    done = CliRunner().invoke(app, ["bundle", "show", str(tmp_path / "nothing"), "--json"])
    assert done.exit_code != 0
    assert done.stdout == ""
