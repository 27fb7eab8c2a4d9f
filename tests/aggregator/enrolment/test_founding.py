"""A federation is founded whole or not at all, and never over another."""

import os
import stat

import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.enrolment import founding
from fedmedclip.aggregator.enrolment.folder import open_folder
from fedmedclip.protocol.bundle.signature import signer
from fedmedclip.protocol.configuration import read_configuration, require_paths
from fedmedclip.protocol.errors import InvalidInputError
from tests.aggregator.enrolment.centre import FEDERATION, found


def test_what_is_made_fits_together(folder) -> None:
    configuration = read_configuration(folder.configuration_file, AggregatorConfiguration)
    require_paths(folder.configuration_file, configuration)
    assert configuration.federation.name == FEDERATION
    assert configuration.federation.broker_access
    assert configuration.broker.tls
    assert folder.roster().federation == FEDERATION
    assert signer(folder.bundle) == folder.key().public_key == folder.roster().coordinator_key


def test_secrets_are_for_the_owner_only(folder) -> None:
    secret = {"ca-key.pem", "coordinator.key", "aggregator-key.pem", "broker-key.pem", "aggregator.toml"}
    found_files = {path.name: path for path in folder.path.rglob("*") if path.name in secret}
    assert found_files.keys() == secret
    for path in found_files.values():
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


@pytest.mark.parametrize("left", range(8))
def test_one_that_was_stopped_is_made_again(tmp_path, monkeypatch, left) -> None:
    """Stopped at one write after the other; the last ones are while it is moved to its place."""
    if left < 5:
        _interrupt(monkeypatch, founding, "write_new_file", left)
    else:
        _interrupt(monkeypatch, founding.Path, "rename", left - 5)
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path)
    monkeypatch.undo()
    folder = found(tmp_path)
    assert folder.key().public_key == folder.roster().coordinator_key == signer(folder.bundle)
    assert {path.name for path in folder.path.iterdir()} == {*founding.PARTS, "bundle", "lock"}


def test_a_federation_is_not_overwritten(folder, tmp_path) -> None:
    before = folder.key_file.read_bytes()
    with pytest.raises(InvalidInputError, match="holds a federation already"):
        found(tmp_path)
    assert folder.key_file.read_bytes() == before


def test_what_is_in_the_way_is_named(tmp_path) -> None:
    (tmp_path / "centre").mkdir()
    (tmp_path / "centre" / "coordinator.key").write_bytes(bytes(32))
    with pytest.raises(InvalidInputError, match=r"has a coordinator\.key already"):
        found(tmp_path)


def test_a_key_that_others_can_read_is_refused(folder) -> None:
    os.chmod(folder.key_file, 0o644)
    with pytest.raises(InvalidInputError, match="chmod"):
        folder.key()


def test_a_folder_without_a_federation_is_refused(tmp_path) -> None:
    with pytest.raises(InvalidInputError, match="holds no federation"):
        open_folder(tmp_path)


def _interrupt(monkeypatch, owner, name, after) -> None:
    original, calls = getattr(owner, name), iter(range(100))

    def interrupted(*arguments, **options):
        if next(calls) == after:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)
