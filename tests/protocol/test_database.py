"""What a durable SQLite file takes of the disk."""

import sqlite3
from contextlib import closing

from fedmedclip.protocol.database import IN_MEMORY, Database

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
