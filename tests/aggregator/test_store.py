import hashlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import msgspec
import pytest

from fedmedclip.aggregator.round_events import MAXIMUM_STALENESS
from fedmedclip.aggregator.store import Store, StoredHead, StoredUpdate, StoredVersion
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.messages import Plan, Update
from fedmedclip.protocol.objects import refer_to

PLAN = Plan(
    bytes(16), bytes(32), "fedmedclip", bytes(32), 8, 3, 1, "int8", "int8", {"batch_size": 32},
    1, 1, False, 1000.0, None,
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "aggregator.db")
    store.begin(PLAN, b"head", bytes(32))
    yield store
    store.close()


def test_what_is_stored_is_there_after_opening_again(store, tmp_path):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    store.add_update(1, "site-a", 100, b"delta")
    again = Store(tmp_path / "aggregator.db")
    assert again.plan() == PLAN
    assert again.head() == StoredHead(b"head", None, b"")
    assert again.sites() == {"site-a": b"k" * 32}
    assert again.stored_updates() == [("site-a", 1)]
    assert list(again.updates()) == [StoredUpdate("site-a", 1, 100, b"delta")]
    assert again.newest_version() == StoredVersion(0, bytes(32), b"")


def test_an_update_stored_twice_counts_once_and_the_first_stands(store):
    store.add_update(1, "site-a", 100, b"first")
    store.add_update(1, "site-a", 999, b"second")
    assert list(store.updates()) == [StoredUpdate("site-a", 1, 100, b"first")]


def test_a_counted_update_is_remembered_after_its_payload_is_gone(store):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    store.add_update(1, "site-a", 100, b"delta")
    store.advance(StoredVersion(1, b"d" * 32, b"broadcast"), StoredHead(b"head1", b"residual1", b"memory1"))
    assert store.last_round("site-a") == 1
    assert store.head() == StoredHead(b"head1", b"residual1", b"memory1")
    assert [version.payload for version in store.versions_after(0)] == [b"broadcast"]


def test_a_sites_pinned_key_is_not_replaced(store):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    store.admit("site-a", b"other".ljust(32), 200, "0.2.0")
    assert store.sites() == {"site-a": b"k" * 32}


def test_uploads_survive_block_by_block(store, tmp_path):
    update = Update(1, 50, refer_to(bytes(10_000), 4096), 0)
    store.begin_upload("site-a", update)
    store.add_block("site-a", 0, b"zero")
    store.begin_upload("site-a", update)
    store.add_block("site-a", 2, b"two")
    assert Store(tmp_path / "aggregator.db").uploads() == {"site-a": (update, {0: b"zero", 2: b"two"})}
    store.begin_upload("site-a", Update(1, 51, update.payload, 0))
    assert store.uploads()["site-a"][1] == {}
    store.add_update(1, "site-a", 51, b"delta")
    assert store.uploads() == {}


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "aggregator.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StorageError, match=r"aggregator\.db.*damaged"):
        Store(path)


def test_who_is_drawn_for_a_round_stays_known_as_long_as_it_matters(store):
    assert store.drawn_below(1) is None
    store.draw(1, 17)
    store.draw(1, 20)
    store.draw(MAXIMUM_STALENESS + 1, 5)
    assert store.drawn_below(1) == 20
    store.draw(MAXIMUM_STALENESS + 2, 5)
    assert store.drawn_below(1) is None
    assert store.drawn_below(MAXIMUM_STALENESS + 1) == 5


def test_a_kill_in_the_middle_of_a_write_loses_only_that_write(tmp_path):
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from fedmedclip.aggregator.store import Store\n"
        "from tests.aggregator.test_store import PLAN\n"
        f"store = Store(Path({str(tmp_path / 'aggregator.db')!r}))\n"
        "store.begin(PLAN, b'head', bytes(32))\n"
        "store.add_update(1, 'site-a', 100, b'delta')\n"
        "with store._database.transaction() as database:\n"
        "    database.execute('DELETE FROM updates')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -9
    assert Store(tmp_path / "aggregator.db").stored_updates() == [("site-a", 1)]


def test_a_full_disk_is_one_clear_line_and_what_was_stored_stays(store, tmp_path):
    store.add_update(1, "site-a", 100, b"delta")
    connection = store._database._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="the disk is full; what was acknowledged is safe"):
        store.add_update(1, "site-b", 100, bytes(1 << 20))
    assert store.stored_updates() == [("site-a", 1)]
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "aggregator.db", copy)
    assert sqlite3.connect(copy).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def advance(store, version):
    """Make a version whose values tell it from others."""
    head = StoredHead(b"head%d" % version, b"residual%d" % version, b"memory%d" % version)
    store.advance(StoredVersion(version, b"digest%d" % version, b"delta%d" % version), head)


def test_before_a_run_there_is_nothing(tmp_path):
    store = Store(tmp_path / "aggregator.db")
    assert (store.plan(), store.federation_name(), store.configured()) == (None, None, None)
    assert (store.ended_run(1), store.sites(), store.uploads()) == (None, {}, {})
    store.close()


def test_name_and_configured_values_are_known_once_they_are_described(store):
    assert (store.federation_name(), store.configured()) == (None, None)
    store.describe("trial", {"rounds": 3, "maximum_update_norm": 5.5})
    assert store.federation_name() == "trial"
    assert store.configured() == {"rounds": 3, "maximum_update_norm": 5.5}


def test_the_next_run_keeps_the_sites_and_puts_away_the_newest_head(store):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    for version in (1, 2):
        advance(store, version)
    store.keep_whole(2, b"head2")
    store.add_update(3, "site-a", 100, b"delta")
    store.begin_upload("site-b", Update(3, 50, refer_to(bytes(10_000), 4096), 0))
    store.add_block("site-b", 0, b"zero")
    later = msgspec.structs.replace(PLAN, number=2, identity=b"i" * 16)
    store.begin_run(later, b"begun", b"b" * 32)
    assert store.ended_run(1) == (PLAN, 2, b"head2", b"digest2")
    assert store.ended_run(2) is None
    assert store.plan() == later
    assert store.head() == StoredHead(b"begun", None, b"")
    assert store.newest_version() == StoredVersion(0, b"b" * 32, b"")
    assert store.whole_head_before(99) == (0, b"begun")
    assert store.sites() == {"site-a": b"k" * 32}
    assert store.last_round("site-a") == 0
    assert (store.stored_updates(), store.uploads()) == ([], {})


def test_a_new_run_can_go_back_to_its_first_head(store):
    assert store.whole_head_before(0) == (0, b"head")


def test_a_revised_plan_replaces_the_one_before(store):
    revised = msgspec.structs.replace(PLAN, rounds=9, revision=2)
    store.revise(revised)
    assert store.plan() == revised


def test_versions_are_listed_in_order_and_their_deltas_found_by_digest(store):
    for version in (1, 2, 3):
        advance(store, version)
    assert [stored.version for stored in store.versions_after(1)] == [2, 3]
    assert store.versions_after(3) == []
    assert store.newest_version() == StoredVersion(3, b"digest3", b"delta3")
    assert store.payload_with_digest(hashlib.sha256(b"delta2").digest()) == b"delta2"
    assert store.payload_with_digest(bytes(32)) is None
    assert store.delta_bytes() == 3 * len(b"delta1")


def test_heads_are_kept_whole_and_a_damaged_one_is_passed_over(store):
    for version in (3, 6):
        store.keep_whole(version, b"whole%d" % version)
    assert [store.whole_head_before(version) for version in (2, 3, 5, 6)] == [
        (0, b"head"), (3, b"whole3"), (3, b"whole3"), (6, b"whole6"),
    ]  # fmt: skip
    store.keep_whole(6, b"again")
    assert store.whole_head_before(7) == (6, b"again")
    with store._database.transaction() as database:
        database.execute("UPDATE whole_heads SET head = x'00' WHERE version = 6")
    assert store.whole_head_before(7) == (3, b"whole3")
    store.forget_before(4)
    assert store.whole_head_before(3) is None


def test_what_lies_before_a_version_is_forgotten(store):
    for version in (1, 2, 3):
        advance(store, version)
    store.forget_before(2)
    assert [stored.version for stored in store.versions_after(-1)] == [2, 3]


def test_a_closed_round_leaves_no_uploads_and_no_payloads_of_it_and_of_rounds_before(store):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    for round_number in (1, 2, 3):
        store.add_update(round_number, "site-a", 100, b"delta")
    store.begin_upload("site-b", Update(2, 50, refer_to(bytes(10_000), 4096), 0))
    store.add_block("site-b", 0, b"zero")
    advance(store, 2)
    assert store.stored_updates() == [("site-a", 3)]
    assert store.uploads() == {}
    store.begin_upload("site-b", Update(2, 50, refer_to(bytes(10_000), 4096), 0))
    assert store.uploads()["site-b"][1] == {}


def test_an_upload_is_forgotten_with_its_blocks_and_others_stay(store):
    update = Update(1, 50, refer_to(bytes(10_000), 4096), 0)
    for site in ("site-a", "site-b"):
        store.begin_upload(site, update)
        store.add_block(site, 0, b"zero")
        store.add_block(site, 0, b"other")  # it has come already
    store.forget_upload("site-a")
    assert store.uploads() == {"site-b": (update, {0: b"zero"})}
    store.begin_upload("site-a", update)
    assert store.uploads()["site-a"] == (update, {})


def test_a_site_that_joins_again_may_have_more_images(store):
    for samples in (100, 200):
        store.admit("site-a", b"k" * 32, samples, "0.2.0")
    assert store._database.row("SELECT samples FROM sites") == (200,)


def test_updates_come_by_site_and_round(store):
    for site, round_number in (("b", 2), ("a", 1), ("b", 1), ("c", 1)):
        store.add_update(round_number, site, 1, b"%s%d" % (site.encode(), round_number))
    assert store.stored_updates() == [("a", 1), ("b", 1), ("b", 2), ("c", 1)]
    assert [update.payload for update in store.updates()] == [b"a1", b"b1", b"b2", b"c1"]


def test_a_late_update_of_an_earlier_round_does_not_hide_the_newest(store):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    assert store.last_round("site-b") == 0
    for round_number in (5, 3):
        store.add_update(round_number, "site-a", 100, b"delta")
    assert store.last_round("site-a") == 5


def test_commands_wait_in_order_until_they_are_answered(store):
    first, second = (store.give_command(command, 1.0) for command in (b"one", b"two"))
    assert store.open_commands() == [(first, 1.0, b"one"), (second, 1.0, b"two")]
    assert store.command_answer(first) is None
    store.finish_command(first, "done", failed=False, now=2.0)
    store.finish_command(second, "no", failed=True, now=2.0)
    assert store.open_commands() == []
    assert store.command_answer(first) == ("done", False)
    assert store.command_answer(second) == ("no", True)


def test_of_a_batch_all_is_stored_or_nothing(store, tmp_path):
    def fail():
        with store.batch():
            store.admit("site-a", b"k" * 32, 100, "0.2.0")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.sites() == {}
    with store.batch():
        store.admit("site-a", b"k" * 32, 100, "0.2.0")
        store.admit("site-b", b"l" * 32, 100, "0.2.0")
    assert set(Store(tmp_path / "aggregator.db").sites()) == {"site-a", "site-b"}


def test_a_damaged_head_is_named_whichever_part_of_it(store):
    for column in ("head", "residual", "codec_memory"):
        advance(store, 1)
        with store._database.transaction() as database:
            database.execute(f"UPDATE federation SET {column} = x'ff'")
        with pytest.raises(StorageError, match="the global head is damaged"):
            store.head()


def test_a_copy_is_whole_while_the_state_is_in_use(store, tmp_path):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    store.copy_to(tmp_path / "copy.db")
    copy = Store(tmp_path / "copy.db")
    assert (copy.plan(), copy.sites()) == (store.plan(), store.sites())
    copy.close()


def test_a_closed_store_lets_go_of_its_file(tmp_path):
    store = Store(tmp_path / "aggregator.db")
    store.begin(PLAN, b"head", bytes(32))
    store.close()
    with pytest.raises(StorageError):
        store.plan()
    assert [path.name for path in tmp_path.iterdir()] == ["aggregator.db"]


def test_which_version_a_site_runs_is_what_it_said_last(store, tmp_path):
    store.admit("site-a", b"k" * 32, 100, "0.1.0")
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    store.admit("site-b", b"l" * 32, 100, "0.2.0")
    store.note_software("site-b", "0.1.0")
    assert Store(tmp_path / "aggregator.db").software() == {"site-a": "0.2.0", "site-b": "0.1.0"}


def test_a_state_of_before_versions_were_kept_is_migrated(store, tmp_path):
    store.admit("site-a", b"k" * 32, 100, "0.2.0")
    store.close()
    with sqlite3.connect(tmp_path / "aggregator.db") as database:
        for column in ("software", "session", "connection", "sequence", "privacy"):
            database.execute(f"ALTER TABLE sites DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 2")
    again = Store(tmp_path / "aggregator.db")
    assert again.software() == {"site-a": ""}
    again.note_software("site-a", "0.2.0")
    assert again.software() == {"site-a": "0.2.0"}


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("UPDATE federation SET plan = x'c1'", lambda store: store.plan()),
        ("UPDATE federation SET configured = x'7b'", lambda store: store.configured()),
        ("INSERT INTO uploads VALUES ('site-a', x'91')", lambda store: store.uploads()),
        ("INSERT INTO runs VALUES (1, x'', 3, x'', x'')", lambda store: store.ended_run(1)),
    ],
)
def test_a_stored_value_that_is_damaged_is_named(store, tmp_path, change, read):
    with closing(sqlite3.connect(tmp_path / "aggregator.db", isolation_level=None)) as other:
        other.execute(change)
    with pytest.raises(StorageError, match="is damaged"):
        read(store)
