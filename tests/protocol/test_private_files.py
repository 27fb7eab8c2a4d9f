"""What is for its owner only is so from its first byte, and becomes so where it was not."""

import logging
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import LinkSettings, check_secrets
from fedmedclip.protocol.private_files import readers_fault
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


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "site.key"
    load_or_create_signing_key(key)
    assert mode(key) == 0o600
    for permissions in (0o604, 0o644, 0o620):
        key.chmod(permissions)
        with pytest.raises(
            InvalidInputError, match=f"^signing key {key} can be read by .*chmod 6[04]0 {key}$"
        ):
            load_signing_key(key)
    key.chmod(0o400)
    load_signing_key(key)


@pytest.mark.parametrize("name", ["password_file", "key_file"])
def test_a_secret_of_the_link_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "secret"
    path.write_text("tulip\n")
    more = {"password_file": {"username": "a"}, "key_file": {"tls": True, "certificate_file": "site.pem"}}
    settings = LinkSettings(**{name: str(path)}, **more[name])
    path.chmod(0o644)
    with pytest.raises(
        InvalidInputError, match=f"^broker.{name} {path} can be read by other users"
    ) as raised:
        check_secrets(settings)
    assert "tulip" not in str(raised.value)
    path.chmod(0o600)
    check_secrets(settings)


@pytest.mark.parametrize(
    ("owner", "user", "permissions", "refused"),
    [
        (1000, 1000, 0o600, None),
        (1000, 1000, 0o640, "chmod 600"),
        # A file of root's that is lent to a service by its group, as systemd's credentials are.
        (0, 1000, 0o440, None),
        (0, 1000, 0o640, None),
        (0, 1000, 0o660, "chmod 640"),
        (0, 1000, 0o644, "chmod 640"),
        (0, 0, 0o640, None),
        (0, 0, 0o644, "chmod 640"),
    ],
)
def test_whose_file_may_be_read_by_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, user: int, permissions: int, refused: str
) -> None:
    path = tmp_path / "secret"
    status = os.stat_result((stat.S_IFREG | permissions, 1, 1, 1, owner, owner, 1, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda self: status)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    fault = readers_fault(path)
    assert fault is None if refused is None else refused in str(fault)


def test_who_cannot_mount_a_secret_otherwise_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "site.key"
    load_or_create_signing_key(key)
    key.chmod(0o444)
    monkeypatch.setenv("FEDMEDCLIP_ALLOW_READABLE_KEYS", "yes")
    with pytest.raises(InvalidInputError):
        load_signing_key(key)
    monkeypatch.setenv("FEDMEDCLIP_ALLOW_READABLE_KEYS", "1")
    load_signing_key(key)
    assert f"signing key {key} can be read by other users of this machine" in caplog.text


def test_blanks_around_a_password_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    password = tmp_path / "password"
    password.write_text("tulip \n")
    password.chmod(0o600)
    check_secrets(LinkSettings(username="a", password_file=str(password)))
    assert "begins or ends with a blank" in caplog.text
    assert "tulip" not in caplog.text


def test_a_key_that_is_a_named_pipe_does_not_hold_up_a_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "site.key")
    with pytest.raises(InvalidInputError, match="it is a named pipe, not a file"):
        load_or_create_signing_key(tmp_path / "site.key")
