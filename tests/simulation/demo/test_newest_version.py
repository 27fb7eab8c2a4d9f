"""Looking at a running aggregator's version, again and again."""

import os
import sqlite3
from contextlib import closing

from fedmedclip.simulation.demo.summary import newest_version


def test_looking_keeps_no_file_open(tmp_path):
    assert newest_version(tmp_path) == 0
    with closing(sqlite3.connect(tmp_path / "aggregator.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        before = len(os.listdir("/proc/self/fd"))
        # The file is there a moment before its tables are.
        assert [newest_version(tmp_path) for _ in range(20)] == [0] * 20
        database.execute("CREATE TABLE versions (version INTEGER)")
        database.execute("INSERT INTO versions VALUES (7)")
        database.commit()
        assert [newest_version(tmp_path) for _ in range(20)] == [7] * 20
        # SQLite itself may keep a few for the process until the writer is done.
        assert len(os.listdir("/proc/self/fd")) <= before + 3
