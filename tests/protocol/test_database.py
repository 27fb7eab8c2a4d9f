"""What a durable SQLite file takes of the disk."""

import sqlite3
from contextlib import closing

import pytest

from fedmedclip.protocol.database import IN_MEMORY, Database
from fedmedclip.protocol.errors import StorageError

MEBIBYTE = 1 << 20
SCHEMA = "CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY, data BLOB)"


def write(database, times):
    for _ in range(times):
        with database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO things VALUES (1, randomblob(?))", (MEBIBYTE,))


def test_what_a_long_reader_made_the_log_take_is_given_back(tmp_path):
    path, log = tmp_path / "things.db", tmp_path / "things.db-wal"
    with closing(Database(path, SCHEMA)) as database:
        write(database, 1)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM things").fetchall()
            write(database, 20)
            assert log.stat().st_size > 20 * MEBIBYTE
        write(database, 10)
        assert log.stat().st_size < 8 * MEBIBYTE


def test_a_database_in_memory_makes_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(Database(IN_MEMORY, SCHEMA)) as database:
        write(database, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [7, "text", 0.5, None])
def test_a_value_of_another_kind_than_its_column_is_named_when_the_file_is_opened(tmp_path, value):
    path, schema = tmp_path / "things.db", SCHEMA.replace("data BLOB", "data BLOB NOT NULL")
    Database(path, SCHEMA).close()
    with closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO things VALUES (1, ?)", (value,))
        other.commit()
    with pytest.raises(StorageError, match=r"the table .things. is damaged .*another kind than its column"):
        Database(path, schema)


def test_a_schema_that_is_damaged_into_what_is_no_text_is_a_damaged_file(tmp_path):
    path = tmp_path / "things.db"
    with closing(Database(path, SCHEMA)) as database:
        database.copy_to(tmp_path / "copy.db")
    content = (tmp_path / "copy.db").read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE things", b"CREATE \xff\xfeBLE things"))
    with pytest.raises(StorageError, match="the file is damaged"):
        Database(path, SCHEMA)
