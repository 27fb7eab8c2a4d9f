"""A backup has key and roster, and putting it back forgets no revocation."""

import pytest

from fedmedclip.aggregator.enrolment.backup import files_of, files_to_restore, held_still
from fedmedclip.aggregator.enrolment.membership import limit_weight, revoke_member, rotate_key
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.backup import back_up, restore
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.roster.chain import Roster
from tests.aggregator.enrolment.centre import NOW, Hospital, join_by_file


@pytest.fixture
def backup(folder, tmp_path):
    """A federation with one member, of which a backup is made."""
    join_by_file(folder, Hospital())
    state = folder.path / "aggregator-state"
    state.mkdir(mode=0o700)
    store, to = Store(state / "aggregator.db"), tmp_path / "backup"
    with held_still(folder.configuration_file):
        back_up(state, to, "aggregator.db", files_of(folder.configuration_file), store.copy_to)
    store.close()
    return to


def put_back(folder, backup) -> str:
    files, kept = files_to_restore(folder.configuration_file, backup)
    restore(folder.path / "aggregator-state", backup, "aggregator.db", files)
    return kept


def test_what_was_lost_comes_back(folder, backup) -> None:
    assert {path.name for path in backup.iterdir()} == {"aggregator.db", "coordinator.key", "roster"}
    key, roster = folder.key().public_key, folder.roster().encoded
    folder.key_file.unlink()
    folder.roster_file.unlink()
    assert put_back(folder, backup) == ""
    assert (folder.key().public_key, folder.roster().encoded) == (key, roster)
    assert not folder.key_file.stat().st_mode & 0o077


def test_a_longer_roster_stays_with_the_key_that_signs_it(folder, backup) -> None:
    revoke_member(folder, "hospital-a", "left", NOW)
    rotate_key(folder, NOW)
    assert "2 records longer" in put_back(folder, backup)
    assert folder.roster().members.active("hospital-a") is None
    assert folder.key().public_key == folder.roster().coordinator_key


def test_an_older_roster_in_place_is_followed_by_the_backups(folder, backup) -> None:
    newer = folder.roster().encoded
    folder.roster_file.write_bytes(Roster(folder.roster().records[:1]).encoded)
    assert put_back(folder, backup) == ""
    assert folder.roster().encoded == newer


def test_two_histories_are_for_a_person_to_decide(folder, backup) -> None:
    folder.roster_file.write_bytes(Roster(folder.roster().records[:1]).encoded)
    join_by_file(folder, Hospital("hospital-b"))
    limit_weight(folder, "hospital-b", 5, NOW)
    with pytest.raises(InvalidInputError, match="two histories"):
        put_back(folder, backup)
