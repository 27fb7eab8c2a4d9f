import shutil
import sqlite3
import subprocess
import sys

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
    store.admit("site-a", b"k" * 32, 100)
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
    store.admit("site-a", b"k" * 32, 100)
    store.add_update(1, "site-a", 100, b"delta")
    store.advance(StoredVersion(1, b"d" * 32, b"broadcast"), StoredHead(b"head1", b"residual1", b"memory1"))
    assert store.last_round("site-a") == 1
    assert store.head() == StoredHead(b"head1", b"residual1", b"memory1")
    assert [version.payload for version in store.versions_after(0)] == [b"broadcast"]


def test_a_sites_pinned_key_is_not_replaced(store):
    store.admit("site-a", b"k" * 32, 100)
    store.admit("site-a", b"other".ljust(32), 200)
    assert store.sites() == {"site-a": b"k" * 32}


def test_uploads_survive_block_by_block(store, tmp_path):
    update = Update(1, 50, refer_to(bytes(10_000), 4096))
    store.begin_upload("site-a", update)
    store.add_block("site-a", 0, b"zero")
    store.begin_upload("site-a", update)
    store.add_block("site-a", 2, b"two")
    assert Store(tmp_path / "aggregator.db").uploads() == {"site-a": (update, {0: b"zero", 2: b"two"})}
    store.begin_upload("site-a", Update(1, 51, update.payload))
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
