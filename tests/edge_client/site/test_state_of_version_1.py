"""A state that the first version of this software wrote goes on where it stood."""

import sqlite3

import msgspec
import pytest

from fedmedclip.edge_client.site.state import OutgoingUpdate, SiteState
from fedmedclip.protocol.errors import StorageError

TABLES = """
CREATE TABLE site (
    id INTEGER PRIMARY KEY CHECK (id = 1), plan BLOB, version INTEGER, finished INTEGER,
    trained_round INTEGER, shared_head BLOB, private_head BLOB, residual BLOB, codec_memory BLOB);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY CHECK (id = 1), round_number INTEGER, samples INTEGER, payload BLOB,
    residual_if_refused BLOB, codec_memory_if_refused BLOB);
CREATE TABLE journal (version INTEGER PRIMARY KEY, report BLOB);
"""
PLAN = [1, bytes(16), b"k" * 32, "fedmedclip", bytes(32), 8, 3, 1, "int8", "int8", {}]


@pytest.fixture
def state(tmp_path):
    """Round 2 is trained, and its update on its way."""
    connection = sqlite3.connect(tmp_path / "site.db")
    connection.executescript(TABLES)
    connection.execute(
        "INSERT INTO site VALUES (1, ?, 1, 0, 2, x'aa', x'bb', x'cc', x'dd')", (msgspec.msgpack.encode(PLAN),)
    )
    connection.execute("INSERT INTO outbox VALUES (1, 2, 10, x'ee', x'01', x'02')")
    connection.execute("INSERT INTO journal VALUES (1, CAST('{\"bytes\":5}' AS BLOB))")
    connection.commit()
    connection.close()
    state = SiteState(tmp_path / "site.db")
    yield state
    state.close()


def test_it_stands_where_it_stood(state):
    stored = state.load()
    assert (stored.plan.rounds, stored.plan.number, stored.plan.revision) == (3, 1, 1)
    assert (stored.version, stored.trained_round, stored.finished) == (1, 2, False)
    assert (stored.shared_head, stored.private_head) == (b"\xaa", b"\xbb")
    assert (stored.residual, stored.codec_memory) == (b"\xcc", b"\xdd")
    assert state.outgoing_update() == OutgoingUpdate(2, 10, b"\xee")
    assert state.journal() == {1: {"bytes": 5}}
    assert state.evidence() is None


@pytest.mark.parametrize("again", [False, True])
def test_its_update_may_still_be_refused(state, again):
    state.settle(2, accepted=False, again=again)
    stored = state.load()
    assert (stored.residual, stored.codec_memory) == (b"\x01", b"\x02")
    # What the private head was before is not known.
    assert (stored.private_head, stored.trained_round) == (b"\xbb", 1 if again else 2)


def test_its_update_may_still_be_accepted(state):
    state.settle(2, accepted=True)
    assert state.outgoing_update() is None
    state.reopen(2)
    assert state.outgoing_update() == OutgoingUpdate(2, 10, b"\xee")


@pytest.mark.parametrize("column", ["private_head", "residual", "codec_memory"])
def test_damage_is_noticed_from_then_on(state, column):
    with state._database.transaction() as database:
        database.execute(f"UPDATE site SET {column} = x'00'")
    with pytest.raises(StorageError, match="private head is damaged"):
        state.load()
