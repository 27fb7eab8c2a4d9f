"""Trusted keys lie in files of their own, away from every bundle, where nobody else can add one."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.trust.pins import (
    OWN_NOTE,
    configuration_folder,
    own_key,
    pin,
    pin_where_possible,
    pins,
    pins_folder,
    unpin,
)

KEYS = [bytes([number]) * 32 for number in range(9)]


def test_a_pin_is_kept_until_it_is_taken_out() -> None:
    assert pins() == {}
    assert pin(KEYS[0], "the centre")
    assert not pin(KEYS[0], "the centre")
    assert pin(KEYS[1], "another\nline\x1b[2J")
    assert pins() == {KEYS[0]: "the centre", KEYS[1]: "another line\\x1b[2J"}
    unpin(KEYS[0])
    assert list(pins()) == [KEYS[1]]
    with pytest.raises(InvalidInputError, match="is not among the trusted keys"):
        unpin(KEYS[0])


def test_a_new_key_of_the_same_place_replaces_the_old_one() -> None:
    pin(KEYS[0], "demo's site, /tmp/a")
    pin(KEYS[1], "demo's site, /tmp/b")
    assert pin(KEYS[2], "demo's site, /tmp/a")
    assert set(pins()) == {KEYS[1], KEYS[2]}


def test_many_at_the_same_time_lose_none() -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: pin(key, f"site {key[0]}"), KEYS))
    assert set(pins()) == set(KEYS)


def test_what_is_no_key_in_the_folder_is_left_alone() -> None:
    pin(KEYS[0], "the centre")
    for name in ("README", "AB" * 32, "ab" * 31, f".{'ab' * 32}.partial"):
        (pins_folder() / name).write_text("no key\n")
    (pins_folder() / KEYS[1].hex()).write_bytes(b"")
    (pins_folder() / KEYS[2].hex()).write_bytes(b"\xff" * 10_000)
    assert list(pins()) == KEYS[:3]
    assert pins()[KEYS[1]] == ""


def test_a_folder_that_others_may_write_to_is_refused() -> None:
    pin(KEYS[0], "the centre")
    for folder in (pins_folder(), configuration_folder()):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o770)
        with pytest.raises(InvalidInputError, match=f"chmod go-w {folder}$"):
            pins()
        folder.chmod(0o755)
    assert list(pins()) == KEYS[:1]


def test_the_own_key_is_made_once_and_trusted() -> None:
    key = own_key()
    assert own_key().public_key == key.public_key
    assert pins() == {key.public_key: OWN_NOTE}
    assert stat.S_IMODE((configuration_folder() / "own.key").stat().st_mode) == 0o600


def test_where_nothing_can_be_kept_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    with pytest.raises(InvalidInputError, match="set XDG_CONFIG_HOME"):
        own_key()
    with pytest.raises(InvalidInputError, match="set XDG_CONFIG_HOME"):
        pin(KEYS[0], "the centre")
    pin_where_possible(KEYS[0], "the centre")
    assert f"fedmedclip trust {KEYS[0].hex()}" in caplog.text


def test_a_relative_configuration_folder_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "here", None):
        if value is None:
            monkeypatch.delenv("XDG_CONFIG_HOME")
        else:
            monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert configuration_folder() == tmp_path / ".config" / "fedmedclip"
    assert os.listdir(tmp_path) == []
