"""`fedmedclip site versions`, `activate`, `rollback`, and backups of what they show."""

import json

import pytest
from typer.testing import CliRunner

from fedmedclip.command import app
from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.edge_client.heads.heads_file import load_heads
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.versions.guard import Guard
from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.versions.version_examples import BEST, BUNDLE, EMBEDDINGS, LABELS, heads


@pytest.fixture
def place(tmp_path):
    """A site that keeps two versions, the second of which was set aside."""
    (tmp_path / "site.toml").write_text(
        '[site]\nfederation = "trial"\nname = "site-a"\nbundle = "bundle"\ndata = "images"\nstate = "state"\n'
        '[broker]\nhost = "localhost"\n'
    )
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    SiteState(state / "site.db").close()
    guard = Guard(state / "heads.safetensors", BUNDLE, LabelledFeatures(EMBEDDINGS, LABELS))
    guard.judge(heads(1, BEST), 3, "a1")
    guard.judge(heads(2, -BEST), 3, "a1")
    return tmp_path


def site(place, *arguments, config="site.toml"):
    arguments = ["site", *arguments, "--config", str(place / config)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    if isinstance(done.exception, InvalidInputError):
        return str(done.exception)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_is_kept_is_shown_and_the_operator_chooses(place):
    shown = site(place, "versions")
    [answers] = [line for line in shown.splitlines() if "active" in line and "activated" in line]
    assert answers.replace("│", " ").split()[:2] == ["active", "1"]
    assert "2 set aside: worse than version 1: balanced accuracy 0.000" in shown
    assert "version 2 of run 3 answers now" in site(place, "activate", "2")
    assert load_heads(place / "state" / "heads.safetensors", BUNDLE).version == 2
    assert json.loads(site(place, "rollback", "--json"))["name"] == "3:1"
    found = json.loads(site(place, "versions", "--json"))["versions"]
    assert [(one["name"], one["active"], one["verdict"], one["fault"]) for one in found] == [
        ("3:1", True, "by hand", None), ("3:2", False, "left", None),
    ]  # fmt: skip
    assert found[1]["comparison"]["against"] == "3:1"
    assert found[0]["figures"]["voters"]["ensemble"]["sensitivity"]["class_0"][1] > 0
    assert "no version 9 is kept here; there are: 1, 2" in site(place, "activate", "9")
    assert "no version that can be used was active before" in site(place, "rollback")


def test_a_damaged_version_is_shown_and_a_site_without_any_says_so(place, tmp_path):
    second = Versions(place / "state").listing()[1]
    (place / "state" / "versions" / second.file).write_bytes(b"")
    shown = site(place, "versions")
    assert "set aside, damaged" in shown
    assert "its checksum is not the recorded one" in shown
    text = (place / "site.toml").read_text().replace('"state"', '"elsewhere"')
    (place / "new.toml").write_text(text)
    assert "has no version yet" in site(place, "versions", config="new.toml")
    assert json.loads(site(place, "versions", "--json", config="new.toml")) == {"versions": []}
    assert "has no version yet" in site(place, "rollback", config="new.toml")
    assert not (place / "elsewhere").exists()


def test_a_backup_has_the_versions_and_restores_them(place):
    (place / "state" / "site.key").write_bytes(b"key")
    printed = site(place, "backup", str(place / "copy"))
    assert "heads and 4 files of versions" in printed
    assert {path.stat().st_mode & 0o777 for path in (place / "copy").rglob("*") if path.is_file()} == {0o600}
    before = Versions(place / "state").listing()
    (place / "state").rename(place / "lost")
    site(place, "restore", str(place / "copy"))
    assert Versions(place / "state").listing() == before
    assert load_heads(place / "state" / "heads.safetensors", BUNDLE).version == 1
    assert Versions(place / "state").faults() == {}
    # Versions that are in place are as new as the backup's, or newer.
    Versions(place / "state").activate("2", "x")
    site(place, "restore", str(place / "copy"))
    assert Versions(place / "state").active().name == "3:2"
