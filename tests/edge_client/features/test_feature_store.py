"""What was put is found again: after kills, beside other processes, on a full disk, next to damage."""

import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.protocol.errors import StorageError
from tests import ROOT

BUNDLE, OTHER_BUNDLE = b"b" * 32, b"o" * 32


def vectors(numbers: Iterable[int], size: int = 64) -> dict[bytes, npt.NDArray[np.float32]]:
    return {
        number.to_bytes(32, "big"): np.random.default_rng(number).normal(size=size).astype(np.float32)
        for number in numbers
    }


def assert_stored(store: FeatureStore, expected: dict[bytes, npt.NDArray[np.float32]]) -> None:
    found = store.get_many(BUNDLE, expected)
    assert found.keys() == expected.keys()
    for content_hash, vector in expected.items():
        np.testing.assert_array_equal(found[content_hash], vector)
        assert found[content_hash].dtype == np.float32


def test_gives_back_what_was_put_in_an_earlier_life(tmp_path: Path) -> None:
    path = tmp_path / "state" / "features.sqlite"
    with FeatureStore(path) as store:
        store.put_many(BUNDLE, vectors(range(1200)))
        assert store.get_many(OTHER_BUNDLE, vectors(range(3))) == {}
    with FeatureStore(path) as store:
        assert_stored(store, vectors(range(1200)))
        assert store.get_many(BUNDLE, vectors([5000])) == {}
        assert store.set_aside is None
    assert [file.name for file in path.parent.iterdir()] == ["features.sqlite"]


def test_put_is_all_or_nothing(tmp_path: Path) -> None:
    with FeatureStore(tmp_path / "features") as store:
        unusable: dict[Any, Any] = {**vectors(range(3)), None: np.ones(4)}
        with pytest.raises(StorageError):
            store.put_many(BUNDLE, unusable)
        assert store.get_many(BUNDLE, vectors(range(3))) == {}
        store.put_many(BUNDLE, vectors(range(3)))
        assert_stored(store, vectors(range(3)))


def scribble(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def wipe_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20_000:-20_000] = b"\xaa" * (len(content) - 40_000)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [scribble, cut, wipe_pages])
def test_a_damaged_store_is_set_aside_and_said_so(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "features"
    with FeatureStore(path) as store:
        store.put_many(BUNDLE, vectors(range(300)))
    damage(path)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING), FeatureStore(path) as store:
        store.get_many(BUNDLE, vectors(range(300)))
        store.put_many(BUNDLE, vectors(range(300)))
        assert_stored(store, vectors(range(300)))
        assert store.set_aside == tmp_path / "features.damaged-1"
    assert "set aside as features.damaged-1" in caplog.text
    assert (tmp_path / "features.damaged-1").exists()


def test_damage_while_it_is_open_costs_time_only(tmp_path: Path) -> None:
    path = tmp_path / "features"
    with FeatureStore(path) as store:
        store.put_many(BUNDLE, vectors(range(300)))
        with path.open("r+b") as file:
            file.write(b"\xaa" * 40_000)
        store.put_many(BUNDLE, vectors(range(300, 400)))
        assert_stored(store, vectors(range(300, 400)))


def test_refuses_another_database(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE patients (name TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="another program's database"):
        FeatureStore(path)
    assert path.read_bytes() == before


def test_refuses_a_newer_layout(tmp_path: Path) -> None:
    path = tmp_path / "features"
    FeatureStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="layout 99"):
        FeatureStore(path)


def test_refuses_a_path_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        FeatureStore(tmp_path / "file" / "features")
    with pytest.raises(StorageError):
        FeatureStore(tmp_path)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.protocol.errors import StorageError
from tests.edge_client.features.test_feature_store import BUNDLE, assert_stored, vectors

path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with FeatureStore(path) as store:
    store.put_many(BUNDLE, vectors(range(100)))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50_000, hard))
    try:
        store.put_many(BUNDLE, vectors(range(100, 1000)))
    except StorageError as error:
        print(error)
    assert_stored(store, vectors(range(100)))
    assert store.get_many(BUNDLE, vectors(range(100, 1000))) == {}
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    store.put_many(BUNDLE, vectors(range(100, 1000)))
    assert_stored(store, vectors(range(1000)))
"""


def test_a_file_that_cannot_grow_loses_nothing(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", FULL_DISK, str(tmp_path / "features")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "features" in done.stdout
    assert "space" in done.stdout


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "features"
    with FeatureStore(path) as store:
        store.put_many(BUNDLE, vectors(range(10)))
        # SQLite's own limit fails with the same code as a device without space.
        connection = store._connection
        assert connection is not None
        connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(StorageError, match="the disk is full; free some space"):
            store.put_many(BUNDLE, vectors(range(10, 2000)))
        assert_stored(store, vectors(range(10)))


WRITER = """
import sys
from pathlib import Path
from fedmedclip.edge_client.features.feature_store import FeatureStore
from tests.edge_client.features.test_feature_store import BUNDLE, vectors

first = int(sys.argv[2])
with FeatureStore(Path(sys.argv[1])) as store:
    for start in range(first, first + 200, 10):
        store.put_many(BUNDLE, vectors(range(start, start + 10)))
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_two_processes_write_at_once(tmp_path: Path, damaged: bool) -> None:
    path = tmp_path / "features"
    if damaged:
        scribble(path)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(first)], cwd=ROOT)
        for first in (0, 150)
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    with FeatureStore(path) as store:
        assert_stored(store, vectors(range(350)))
    assert len(list(tmp_path.glob("features.damaged-*"))) == damaged


def test_a_flipped_bit_in_an_embedding_is_noticed_and_it_alone_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "features"
    with FeatureStore(path) as store:
        store.put_many(BUNDLE, vectors(range(20)))
    key = (7).to_bytes(32, "big")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (blob,) = connection.execute("SELECT vector FROM embedding WHERE image = ?", (key,)).fetchone()
        flipped = bytes([blob[0] ^ 1]) + blob[1:]
        connection.execute("UPDATE embedding SET vector = ? WHERE image = ?", (flipped, key))
    with caplog.at_level(logging.WARNING), FeatureStore(path) as store:
        assert store.get_many(BUNDLE, vectors(range(20))).keys() == vectors(range(20)).keys() - {key}
        assert "1 damaged embeddings are computed again" in caplog.text
        store.put_many(BUNDLE, vectors([7]))
        assert_stored(store, vectors(range(20)))


def test_a_store_of_before_checksums_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "features"
    with FeatureStore(path) as store:
        store.put_many(BUNDLE, {})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 1")
        for key, vector in vectors(range(20)).items():
            row = (BUNDLE, key, vector.astype("<f4").tobytes())
            connection.execute("INSERT INTO embedding VALUES (?, ?, ?)", row)
    with FeatureStore(path) as store:
        assert_stored(store, vectors(range(20)))
    with FeatureStore(path) as store:
        assert_stored(store, vectors(range(20)))
