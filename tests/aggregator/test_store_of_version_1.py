"""A state that the first version of this software wrote goes on: nothing is lost, nothing counts twice."""

import sqlite3

import msgspec
import pytest

from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store, StoredHead, StoredUpdate, StoredVersion
from fedmedclip.aggregator.stored_heads import head_at
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest

TABLES = """
CREATE TABLE federation (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB, head BLOB, residual BLOB, codec_memory BLOB);
CREATE TABLE sites (name TEXT PRIMARY KEY, public_key BLOB, samples INTEGER);
CREATE TABLE uploads (site TEXT PRIMARY KEY, message BLOB);
CREATE TABLE upload_blocks (site TEXT, number INTEGER, data BLOB, PRIMARY KEY (site, number));
CREATE TABLE updates (
    round_number INTEGER, site TEXT, samples INTEGER, size INTEGER, payload BLOB,
    PRIMARY KEY (round_number, site));
CREATE TABLE versions (version INTEGER PRIMARY KEY, head_digest BLOB, payload BLOB, payload_digest BLOB);
"""
PLAN = [1, bytes(16), b"k" * 32, "fedmedclip", bytes(32), 8, 3, 1, "int8", "int8", {"batch_size": 32}]
SPECIFICATION = HeadSpecification((TensorSpecification("weight", (4, 4), initial_bound=1.0),))
HEAD = SPECIFICATION.initial(1)


@pytest.fixture
def store(tmp_path):
    """Round 1 is done, and in round 2 one of two sites has delivered."""
    connection = sqlite3.connect(tmp_path / "aggregator.db")
    connection.executescript(TABLES)
    for statement, values in (
        ("federation VALUES (1, ?, ?, x'01', x'02')",
         (msgspec.msgpack.encode(PLAN), SPECIFICATION.to_bytes(HEAD))),
        ("sites VALUES ('site-a', x'aa', 100), ('site-b', x'bb', 50), ('site-c', x'cc', 50)", ()),
        ("updates VALUES (1, 'site-a', 100, 9, NULL), (1, 'site-b', 50, 9, NULL)", ()),
        ("updates VALUES (2, 'site-a', 100, 5, x'dd')", ()),
        ("versions VALUES (0, x'00', x'', x'')", ()),
        ("versions VALUES (1, ?, x'ee', x'ff')", (head_digest(HEAD),)),
    ):  # fmt: skip
        connection.execute(f"INSERT INTO {statement}", values)
    connection.commit()
    connection.close()
    store = Store(tmp_path / "aggregator.db")
    yield store
    store.close()


def test_plan_head_and_versions_are_as_they_were(store):
    plan = store.plan()
    assert (plan.method, plan.rounds, plan.training) == ("fedmedclip", 3, {"batch_size": 32})
    assert (plan.number, plan.revision, plan.paused, plan.maximum_update_norm) == (1, 1, False, 1000.0)
    assert store.head() == StoredHead(SPECIFICATION.to_bytes(HEAD), b"\x01", b"\x02")
    assert store.newest_version() == StoredVersion(1, head_digest(HEAD), b"\xee")
    assert store.configured() is None
    assert store.federation_name() is None


def test_what_was_delivered_counts_and_counts_once(store):
    assert list(store.updates()) == [StoredUpdate("site-a", 2, 100, b"\xdd")]
    assert store.last_round("site-a") == 2
    assert store.last_round("site-b") == 1
    assert store.last_round("site-c") == 0


def test_it_goes_on_and_is_not_changed_again_when_it_is_opened_again(store, tmp_path):
    store.add_update(2, "site-b", 50, b"delta")
    store.revise(msgspec.structs.replace(store.plan(), rounds=9))
    again = Store(tmp_path / "aggregator.db")
    assert again.plan().rounds == 9
    assert again.stored_updates() == [("site-a", 2), ("site-b", 2)]
    again.close()


def test_the_newest_head_can_be_rolled_back_to_and_made_again(store):
    GlobalHead(store, SPECIFICATION, "int8", 3, 1 << 17)
    assert head_digest(head_at(store, SPECIFICATION, 1)) == head_digest(HEAD)
    with store._database.transaction() as database:
        database.execute("UPDATE federation SET head = zeroblob(64)")
    assert GlobalHead(store, SPECIFICATION, "int8", 3, 1 << 17).digest == head_digest(HEAD)
    assert store.head().head == SPECIFICATION.to_bytes(HEAD)


def test_a_state_in_which_no_run_has_begun_stays_one(tmp_path):
    connection = sqlite3.connect(tmp_path / "empty.db")
    connection.executescript(TABLES)
    connection.close()
    store = Store(tmp_path / "empty.db")
    assert store.plan() is None
    assert store.configured() is None
    store.close()
