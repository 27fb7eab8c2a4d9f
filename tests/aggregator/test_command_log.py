"""The record of the operator's commands: what was changed, taken out or put in is found."""

import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.signature import new_signing_key

KEY, ROTATED, STRANGER = new_signing_key(), new_signing_key(), new_signing_key()


def record(store, count, key=KEY, since=0):
    for number in range(since + 1, since + count + 1):
        asked = store.give_command(b"{}", float(number))
        store.finish_command(asked, "done", failed=False, now=float(number))
        store.command_log.append(
            key, asked=asked, given_at=float(number), done_at=number + 0.5, by="anna",
            command='{"type":"Pause"}', answer="paused", failed=False, run=7, version=number,
        )  # fmt: skip


def test_a_record_is_whole_and_says_who_asked_what_when(store):
    record(store, 2)
    record(store, 1, ROTATED, since=2)
    verdict = store.command_log.verify({KEY.public_key, ROTATED.public_key})
    assert (verdict.records, verdict.faults) == (3, ())
    first, _second, third = store.command_log.records()
    assert (first.number, first.by, first.given_at, first.version) == (1, "anna", 1.0, 1)
    assert third.key == ROTATED.public_key.hex()
    assert store.command_log.records(after=2) == [third]
    # Of a key that was never this aggregator's nothing is believed.
    assert store.command_log.verify({KEY.public_key}).faults


def test_before_the_first_command_nothing_is_missing(store):
    assert store.command_log.verify({KEY.public_key}).faults == ()


CHANGES = {
    "a record is changed": "UPDATE command_log SET record = CAST(replace(record, 'anna', 'otto') AS BLOB)"
    " WHERE number = 2",
    "its signature is taken away": "UPDATE command_log SET signature = NULL WHERE number = 2",
    "the first is missing": "DELETE FROM command_log WHERE number = 1",
    "one is missing": "DELETE FROM command_log WHERE number = 2",
    "the last is missing": "DELETE FROM command_log WHERE number = 4",
    "all are missing": "DELETE FROM command_log",
    "two are exchanged": "UPDATE command_log SET number = CASE number WHEN 2 THEN 30 WHEN 3 THEN 2 END"
    " WHERE number IN (2, 3)",
    "the end is missing": "DELETE FROM command_log_end",
    "the end is changed": "UPDATE command_log_end SET end = CAST(replace(end, '4', '3') AS BLOB)",
    "a record is no JSON": "UPDATE command_log SET record = x'00' WHERE number = 3",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_or_is_missing_is_found(store, change):
    record(store, 4)
    with sqlite3.connect(store.path) as database:
        database.execute(CHANGES[change])
    assert store.command_log.verify({KEY.public_key}).faults


def test_a_command_that_left_no_record_is_found(store):
    record(store, 2)
    asked = store.give_command(b"{}", 3.0)
    store.finish_command(asked, "done", failed=False, now=3.0)
    record(store, 1, since=3)
    faults = store.command_log.verify({KEY.public_key}).faults
    assert f"command {asked} was carried out and has no record" in faults


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_of_it_can_be_another(tmp_path, data):
    path = tmp_path / "bytes.db"
    path.unlink(missing_ok=True)
    store = Store(path, durable=False)
    record(store, 3)
    table, column = data.draw(
        st.sampled_from(
            [("command_log", "record"), ("command_log", "signature"), ("command_log_end", "end"),
             ("command_log_end", "signature")]
        )
    )  # fmt: skip
    key = "number" if table == "command_log" else "id"
    with sqlite3.connect(path) as database:
        rows = database.execute(f"SELECT {key}, {column} FROM {table}").fetchall()
        number, value = data.draw(st.sampled_from(rows))
        place = data.draw(st.integers(0, len(value) - 1))
        bits = data.draw(st.integers(1, 255))
        changed = value[:place] + bytes([value[place] ^ bits]) + value[place + 1 :]
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (changed, number))
    assert store.command_log.verify({KEY.public_key}).faults
    store.close()
