"""`fedmedclip ledger` on a site that does not run: what it prints, and its exit codes."""

import shutil

import msgspec
import pytest
from typer.testing import CliRunner

from fedmedclip.command import app
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER, read_entries, segments_in
from fedmedclip.edge_client.site.post import Post
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.messages import HeadRequest
from fedmedclip.protocol.signature import load_or_create_signing_key
from fedmedclip.simulation.processes.configurations import write_site_configuration


@pytest.fixture
def site(tmp_path):
    """A site that has sent two messages."""
    write_site_configuration(
        tmp_path / "site.toml",
        federation="trial", site="site-a", bundle=tmp_path, data=tmp_path, seed=1, broker=LinkSettings(),
    )  # fmt: skip
    state = SiteState(tmp_path / "site.db")
    ledger = MessageLedger(tmp_path / LEDGER_FOLDER, state.ledger_end)
    post = Post("trial", "site-a", load_or_create_signing_key(tmp_path / "site.key"), ledger)
    post.up([HeadRequest(1), HeadRequest(2)], bytes(16), 0)
    ledger.close()
    state.close()
    return tmp_path


def ledger(site, *arguments):
    """Run the command; return its exit code and output, or raise what it says in one line."""
    result = CliRunner().invoke(app, ["ledger", *arguments, "--config", str(site / "site.toml")])
    if isinstance(result.exception, InvalidInputError):
        raise result.exception
    return result.exit_code, result.output


def test_show_chooses_and_sums(site):
    code, output = ledger(site, "show", "--direction", "out", "--last", "1")
    assert code == 0
    assert "HeadRequest" in output
    assert "have_version 2" in output
    assert "have_version 1" not in output
    assert "sent 140 bytes in 2 messages" in output
    assert ledger(site, "show", "--kind", "headrequest", "--since", "2999-01-01")[1].count("HeadRequest") == 0
    with pytest.raises(InvalidInputError, match="--since 'soon' is no date"):
        ledger(site, "show", "--since", "soon")
    shown = msgspec.json.decode(ledger(site, "show", "--json")[1])
    assert [entry["kind"] for entry in shown["entries"]] == ["Beginning", "HeadRequest", "HeadRequest"]


def test_verify_says_that_it_is_whole_or_where_it_is_not(site):
    code, output = ledger(site, "verify")
    assert (code, output.split(":")[0]) == (0, "whole")
    newest = output.split("newest ")[1].strip()
    assert ledger(site, "verify", "--against", newest)[0] == 0
    with pytest.raises(InvalidInputError, match="is no NUMBER:HASH"):
        ledger(site, "verify", "--against", "3")
    ((_, path),) = segments_in(site / LEDGER_FOLDER)
    path.write_bytes(path.read_bytes().replace(b'"bytes":70', b'"bytes":17', 1))
    with pytest.raises(InvalidInputError, match="entry 2 is changed: its hash is not that of its content"):
        ledger(site, "verify")
    code, output = ledger(site, "verify", "--json")
    assert code == 2
    assert msgspec.json.decode(output)["whole"] is False
    assert ledger(site, "verify", "--from", "4")[0] == 0


def test_replay_says_what_differs(site):
    assert ledger(site, "replay") == (0, "HeadRequest: 2 the same\n")
    (site / "site.key").unlink()
    with pytest.raises(InvalidInputError, match=r"no site.key or site.db"):
        ledger(site, "replay")
    load_or_create_signing_key(site / "site.key")
    code, output = ledger(site, "replay")
    assert code == 2
    assert "2 differ: entries 2, 3" in output
    assert msgspec.json.decode(ledger(site, "replay", "--json")[1])["differs"] is True


def test_export_and_report_write_private_files(site):
    assert ledger(site, "export", str(site / "all.csv"))[0] == 0
    assert len((site / "all.csv").read_text().splitlines()) == 4
    assert ledger(site, "export", str(site / "all.json"), "--format", "json")[0] == 0
    assert len(msgspec.json.decode((site / "all.json").read_bytes())) == 3
    assert ledger(site, "report", str(site / "report.html"))[0] == 0
    assert (site / "report.html").read_text().startswith("<!doctype html>")
    assert (site / "report.html").stat().st_mode & 0o077 == 0


def test_a_site_that_has_not_begun_has_no_ledger(tmp_path, site):
    for _, path in segments_in(site / LEDGER_FOLDER):
        path.unlink()
    # The folder is gone, and the state knows of entries: that is no beginning.
    with pytest.raises(InvalidInputError, match="entries 1 to 3 are missing"):
        ledger(site, "verify")
    (site / "site.db").unlink()
    (site / LEDGER_FOLDER).rmdir()
    with pytest.raises(InvalidInputError, match="has sent and received nothing"):
        ledger(site, "verify")


def put_aside(site):
    """Remove what a restore moved away: two within a second would have one name."""
    for folder in site.glob("before-restore-*"):
        shutil.rmtree(folder)


def test_backup_and_restore_keep_the_longer_one(site):
    runner, config = CliRunner(), ["--config", str(site / "site.toml")]
    assert runner.invoke(app, ["site", "backup", str(site / "copy"), *config]).exit_code == 0
    assert runner.invoke(app, ["site", "restore", str(site / "copy"), *config]).exit_code == 0
    assert [entry.kind for entry in read_entries(site / LEDGER_FOLDER)][-1] == "Restored"
    put_aside(site)
    assert runner.invoke(app, ["site", "restore", str(site / "copy"), *config]).exit_code == 0
    assert len([*read_entries(site / LEDGER_FOLDER)]) == 5
    put_aside(site)
    shutil.rmtree(site / LEDGER_FOLDER)
    assert runner.invoke(app, ["site", "restore", str(site / "copy"), *config]).exit_code == 0
    assert [entry.number for entry in read_entries(site / LEDGER_FOLDER)] == [1, 2, 3, 4]
    assert ledger(site, "verify")[0] == 0
