"""What is for its owner only is so from its first byte, and becomes so where it was not."""

import logging
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import LinkSettings, warn_of_secrets
from fedmedclip.protocol.signature import load_or_create_signing_key, load_signing_key
from fedmedclip.protocol.state_folder import claim_folder, claim_state_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_database_and_the_files_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "site.db"
    database = Database(path, "CREATE TABLE IF NOT EXISTS a (b)")
    with database.transaction() as connection:
        connection.execute("INSERT INTO a VALUES (1)")
    database.copy_to(tmp_path / "copy.db")
    assert {file.name: mode(file) for file in tmp_path.iterdir()} == dict.fromkeys(
        ("site.db", "site.db-wal", "site.db-shm", "copy.db"), 0o600
    )
    database.close()


def test_a_database_that_an_older_version_left_open_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "site.db"
    sqlite3.connect(path).execute("PRAGMA user_version = 1")
    path.chmod(0o644)
    (tmp_path / "site.db-wal").touch(0o644)
    database = Database(path, "")
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}
    database.close()


@pytest.mark.parametrize("before", [[], ["site.toml"], ["site.db", "notes"], ["lock"]])
def test_a_state_folder_is_closed_to_others(
    tmp_path: Path, before: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o755)
    for name in before:
        (folder / name).touch()
    with caplog.at_level(logging.WARNING), claim_state_folder(folder):
        assert mode(folder) == 0o700
    assert "other users could look into the state folder" in caplog.text
    caplog.clear()
    with claim_state_folder(folder):
        assert not caplog.text


def test_a_folder_that_is_somebody_elses_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    (folder / "letters").touch()
    with pytest.raises(InvalidInputError, match=f"chmod 700 {folder}"):
        claim_state_folder(folder)
    assert mode(folder) == 0o755
    with claim_folder(folder):
        assert mode(folder) == 0o755
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(InvalidInputError, match="name a folder of its own"):
        claim_state_folder(shared)


def test_who_can_read_a_secret_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = tmp_path / "site.key"
    load_or_create_signing_key(key)
    assert mode(key) == 0o600
    assert not caplog.text
    key.chmod(0o640)
    load_signing_key(key)
    assert f"signing key {key} can be read by other users of this machine; close it: chmod 600" in caplog.text
    caplog.clear()

    password = tmp_path / "password"
    password.write_text("tulip\n")
    password.chmod(0o640)
    settings = LinkSettings(username="a", password_file=str(password))
    warn_of_secrets(settings)
    assert not caplog.text
    password.chmod(0o644)
    password.write_text("tulip \n")
    warn_of_secrets(settings)
    assert f"broker.password_file {password} can be read by other users" in caplog.text
    assert "begins or ends with a blank" in caplog.text
    assert "tulip" not in caplog.text


def test_a_key_that_is_a_named_pipe_does_not_hold_up_a_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.key")
    with pytest.raises(InvalidInputError, match="it is a named pipe, not a file"):
        load_or_create_signing_key(tmp_path / "site.key")
