import sqlite3

import msgspec
import pytest

from fedmedclip.edge_client.site.state import OutgoingUpdate, Sealed, SiteState, StoredSite
from fedmedclip.protocol.errors import StorageError
from tests.edge_client.site.conftest import PLAN


def what_the_encoder_keeps(state):
    stored = state.load()
    return stored.residual, stored.codec_memory


def test_a_site_begins_without_residual_and_memory(state):
    assert what_the_encoder_keeps(state) == (None, b"")


def test_the_journal_says_whether_it_has_a_report(state):
    state.write_journal(2, {"accuracy": 0.5})
    assert [state.has_report(version) for version in (1, 2, 3)] == [False, True, False]
    assert state.journal() == {2: {"accuracy": 0.5}}


def test_a_refused_update_restores_residual_and_memory_of_before(state):
    state.store_update(OutgoingUpdate(1, 10, b"update"), b"private1", b"residual1", b"memory1")
    assert what_the_encoder_keeps(state) == (b"residual1", b"memory1")
    state.settle(1, accepted=False)
    assert what_the_encoder_keeps(state) == (None, b"")
    assert state.outgoing_update() is None
    assert state.load().private_head == b"private1"
    state.store_update(OutgoingUpdate(2, 10, b"update"), b"private2", b"residual2", b"memory2")
    state.settle(2, accepted=True)
    state.store_update(OutgoingUpdate(3, 10, b"update"), b"private3", b"residual3", b"memory3")
    state.settle(3, accepted=False)
    assert what_the_encoder_keeps(state) == (b"residual2", b"memory2")


def test_a_receipt_of_another_round_changes_nothing(state):
    state.store_update(OutgoingUpdate(2, 10, b"update"), b"private", b"residual", b"memory")
    state.settle(1, accepted=False)
    assert what_the_encoder_keeps(state) == (b"residual", b"memory")
    assert state.outgoing_update() == OutgoingUpdate(2, 10, b"update")


def deliver(state, round_number):
    """Store what a round's training leaves, with values that tell the rounds apart."""
    n = round_number
    update = OutgoingUpdate(n, 10, b"update%d" % n)
    state.store_update(update, b"private%d" % n, b"residual%d" % n, b"memory%d" % n)
    return update


def test_a_fresh_folder_holds_no_run(tmp_path):
    state = SiteState(tmp_path / "site.db")
    assert state.load() is None
    assert state.evidence() is None
    assert (state.ended_runs(), state.journal()) == ([], {})
    state.settle(1, accepted=True)
    assert state.outgoing_update() is None
    state.close()


def test_a_run_is_over_with_the_version_of_its_last_round(state):
    for version, finished in ((2, False), (3, True), (4, True)):
        state.install(version, b"shared")
        assert state.load().finished is finished


def test_what_a_round_made_is_there_after_opening_again(state, tmp_path):
    state.install(1, b"shared1")
    update = deliver(state, 2)
    again = SiteState(tmp_path / "site.db")
    assert again.load() == StoredSite(PLAN, 1, 2, b"shared1", b"private2", b"residual2", b"memory2")
    assert again.outgoing_update() == update


def test_the_next_run_begins_anew_and_the_one_before_is_kept(state):
    state.install(3, b"shared3")
    deliver(state, 3)
    state.write_journal(3, {"seconds": 4})
    later = msgspec.structs.replace(PLAN, number=2, identity=b"i" * 16)
    state.begin(later, b"other", b"private", version=-1, sealed_plan=b"sealed")
    assert state.load() == StoredSite(later, -1, 0, b"other", b"private", None, b"")
    assert state.ended_runs() == [(PLAN, 3)]
    assert (state.outgoing_update(), state.journal()) == (None, {})
    kept = state._database.row("SELECT shared_head, private_head, journal FROM ended_runs")
    assert kept == (b"shared3", b"private3", b'{"3":{"seconds":4}}')


def test_an_accepted_update_stays_until_the_version_of_its_round_is_here(state):
    deliver(state, 1)
    state.settle(1, accepted=True)
    assert state.outgoing_update() is None
    state.install(0, b"shared")
    state.reopen(1)
    assert state.outgoing_update() == OutgoingUpdate(1, 10, b"update1")
    state.settle(1, accepted=True)
    state.install(1, b"shared1")
    state.reopen(1)
    assert state.outgoing_update() is None


def test_an_update_that_is_not_settled_is_still_owed_when_the_version_of_its_round_comes(state):
    update = deliver(state, 1)
    state.install(1, b"shared1")
    assert state.outgoing_update() == update


def test_a_round_that_is_to_be_trained_again_gives_everything_back(state):
    deliver(state, 1)
    state.settle(1, accepted=True)
    deliver(state, 2)
    state.settle(2, accepted=False, again=True)
    assert state.load() == StoredSite(PLAN, 0, 1, b"shared", b"private1", b"residual1", b"memory1")
    assert state.outgoing_update() is None


def test_an_update_that_was_accepted_once_is_not_taken_back_by_a_later_refusal(state):
    deliver(state, 1)
    state.settle(1, accepted=True)
    state.reopen(1)
    state.settle(1, accepted=False)
    assert what_the_encoder_keeps(state) == (b"residual1", b"memory1")
    assert state.outgoing_update() is None
    state.settle(1, accepted=False, again=True)
    assert what_the_encoder_keeps(state) == (None, b"")
    assert state.load().trained_round == 0


def test_evidence_is_the_signed_plan_and_the_carrier_of_the_newest_version(state):
    assert state.evidence() is None
    state.revise(PLAN, b"sealed plan")
    assert state.evidence() == (b"sealed plan", Sealed("", b""), b"")
    carrier = Sealed("topic", b"carrier")
    state.install(1, b"shared1", carrier)
    assert state.evidence() == (b"sealed plan", carrier, b"shared1")
    state.install(2, b"shared2")
    assert state.evidence() == (b"sealed plan", Sealed("", b""), b"")
    state.install(3, b"shared3", carrier)
    state.revise(PLAN, b"")
    assert state.evidence() is None


def test_a_revised_plan_replaces_the_one_before(state):
    revised = msgspec.structs.replace(PLAN, rounds=9, revision=2)
    state.revise(revised, b"sealed")
    assert state.load().plan == revised


def damage(state, column):
    with state._database.transaction() as database:
        database.execute(f"UPDATE site SET {column} = x'ff'")


def test_a_damaged_shared_head_is_dropped_and_damage_of_the_sites_own_is_named(state):
    state.install(2, b"shared2")
    damage(state, "shared_head")
    stored = state.load()
    assert (stored.version, stored.shared_head, stored.private_head) == (-1, bytes(1), b"private")
    for column in ("private_head", "residual", "codec_memory"):
        state.begin(PLAN, b"shared", b"private")
        deliver(state, 1)
        damage(state, column)
        with pytest.raises(StorageError, match="private head is damaged"):
            state.load()


def test_the_journal_keeps_the_newest_report_of_each_version(state):
    for version, report in ((2, {"bytes": 1}), (1, {"bytes": 2}), (2, {"bytes": 3})):
        state.write_journal(version, report)
    assert list(state.journal().items()) == [(1, {"bytes": 2}), (2, {"bytes": 3})]


def test_a_copy_is_whole_while_the_state_is_in_use(state, tmp_path):
    update = deliver(state, 1)
    state.copy_to(tmp_path / "copy.db")
    copy = SiteState(tmp_path / "copy.db")
    assert copy.load() == state.load()
    assert copy.outgoing_update() == update
    copy.close()


def test_a_closed_state_lets_go_of_its_file(state, tmp_path):
    state.close()
    with pytest.raises(StorageError):
        state.load()
    assert [path.name for path in tmp_path.iterdir()] == ["site.db"]


def test_a_damaged_report_is_left_out_and_the_others_stay(state, caplog):
    state.write_journal(1, {"accuracy": 0.5})
    state._database.rows("INSERT INTO journal VALUES (2, x'7b')")
    assert state.journal() == {1: {"accuracy": 0.5}}
    assert "the report of version 2 is left out" in caplog.text


def test_a_damaged_plan_is_named(state):
    state._database.rows("UPDATE site SET plan = x'c1'")
    with pytest.raises(StorageError, match="the plan is damaged"):
        state.load()


def test_a_state_of_protocol_2_is_migrated(state, tmp_path):
    state.store_update(OutgoingUpdate(1, 10, b"update"), b"private", b"residual", b"memory")
    state.close()
    with sqlite3.connect(tmp_path / "site.db") as database:
        database.execute("ALTER TABLE site DROP COLUMN attempts")
        for column in ("attempt", "privacy"):
            database.execute(f"ALTER TABLE outbox DROP COLUMN {column}")
        database.execute("DROP TABLE sessions")
        database.execute("PRAGMA user_version = 2")
    again = SiteState(tmp_path / "site.db")
    assert (again.outgoing_update().attempt, again.session()) == (0, 0)
    again.begin_session(7)
    again.settle(1, False, again=True)
    again.store_update(OutgoingUpdate(1, 10, b"update"), b"private", b"residual", b"memory")
    assert (again.outgoing_update().attempt, again.session()) == (1, 7)
    again.close()
