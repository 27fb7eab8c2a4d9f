"""Databases that the disk, or somebody, has damaged: the aggregator's and a site's.

The first section is the whole file, or empty for the valid one. Each that follows changes it: bytes at a
place of the file (the first three say where), or the value of a cell of a table.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.fuzz.mutations import by_section, mutated_bytes
from benchmarks.fuzz.parties import world
from benchmarks.fuzz.sections import join, split
from benchmarks.fuzz.target import Take, Target
from benchmarks.liveness.parties import (
    AGGREGATOR,
    BUNDLE,
    CODEC,
    EMBEDDING_SIZE,
    FEDERATION,
    MESSAGE_LIMIT,
    always,
)
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import FedMedClipError

_BYTES, _CELL = range(2)


def _open_aggregator(path: Path) -> None:
    """What a start of the aggregator reads, and what its status and its rollback do."""
    parties = world().parties
    with closing(Store(path, durable=False)) as store:
        plan = store.plan()
        store.federation_name()
        store.configured()
        store.software()
        if plan is None:
            return
        store.ended_run(1)
        head = GlobalHead(store, parties.specification, CODEC, plan.rounds, MESSAGE_LIMIT)
        coordinator = Coordinator(parties.settings, plan, store, head, 0.0, always)
        coordinator.opening()
        coordinator.tick(1.0)
        store.damaged_updates()
        head.catch_up(-1)
        for _ in store.updates():
            pass


def _open_site(path: Path) -> None:
    parties = world().parties
    with closing(SiteState(path, durable=False)) as state:
        key = parties.keys["site-0"].public_key
        identity = Identity(FEDERATION, "site-0", key, BUNDLE, None, None, EMBEDDING_SIZE)
        agent = SiteAgent(identity, state, parties.learners["site-0"], MESSAGE_LIMIT)
        agent.connected()
        agent.tick(1.0)
        state.journal()
        state.ended_runs()
        state.evidence()


def _prepare(open_database: Callable[[Path], None], valid: Callable[[], bytes]) -> Callable[[Path], Take]:
    def prepare(folder: Path) -> Take:
        path = folder / "damaged.db"

        def take(data: bytes) -> None:
            for ending in ("", "-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
            sections = split(data) or [(0, b"")]
            path.write_bytes(_damaged(sections[0][1] or valid(), sections[1:], path))
            open_database(path)

        return take

    return prepare


def _damaged(content: bytes, changes: list[tuple[int, bytes]], path: Path) -> bytes:
    for kind, change in changes:
        if kind % 2 == _BYTES:
            at = int.from_bytes(change[:3], "little") % max(1, len(content))
            content = content[:at] + change[3:] + content[at + len(change[3:]) :]
        elif kind % 2 == _CELL:
            content = _with_cell(content, change, path)
    return content


def _with_cell(content: bytes, change: bytes, path: Path) -> bytes:
    """The first byte chooses the column, the second the kind of the value, the rest is the value."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        try:
            database.deserialize(content)
            names = sorted(
                row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            )
            columns = [
                (name, row[1]) for name in names for row in database.execute(f'PRAGMA table_info("{name}")')
            ]
            table, column = columns[(change[0] if change else 0) % max(1, len(columns))]
            database.execute(f'UPDATE OR IGNORE "{table}" SET "{column}" = ?', (_value(change[1:]),))
            return database.serialize()
        except (sqlite3.Error, IndexError, OverflowError, UnicodeDecodeError):
            return content


def _value(change: bytes) -> object:
    kind, rest = change[:1], change[1:]
    match kind[0] % 4 if kind else 0:
        case 0:
            return rest
        case 1:
            return rest.decode("utf-8", "replace")
        case 2:
            return int.from_bytes(rest[:8], "little", signed=True)
    return None


def _copied(storage: Store | SiteState) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "copy.db"
        storage.copy_to(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            # The pages hold nothing of a log then.
            database.execute("PRAGMA journal_mode = DELETE")
        return path.read_bytes()


@cache
def _aggregator_file() -> bytes:
    """Return the database of the middle of a round, with an update, an upload and a run that ended."""
    found = world()
    found.parties.take_up(AGGREGATOR, found.kept[AGGREGATOR])
    store = found.parties.store
    store.describe(FEDERATION, {"rounds": 3})
    return _copied(store)


@cache
def _site_file() -> bytes:
    found = world()
    found.parties.take_up("site-0", found.kept["site-0"])
    state = found.parties.states["site-0"]
    state.write_journal(1, {"seconds": 1.0})
    return _copied(state)


def _seeds(plans: int) -> list[bytes]:
    plan = msgspec.msgpack.encode(world().parties.plan)
    return [
        join([(0, b"")]),
        join([(0, b""), (_BYTES, b"\x10\0\0\xff\xff")]),
        join([(0, b""), (_BYTES, b"\x64\0\0\x0d\0\0"), (_BYTES, b"\0\x10\0\0")]),
        *(
            join([(0, b""), (_CELL, bytes([column, kind]) + plan[:9])])
            for column in range(plans)
            for kind in range(4)
        ),
    ]


def _mutated_change(data: bytes, other: bytes, draw: Random) -> bytes:
    """Also change where: a file is mostly values that have checksums."""
    if draw.random() < 0.5:
        return draw.randbytes(draw.choice((1, 2, 3))) + data[draw.choice((1, 2, 3)) :]
    return mutated_bytes(data, other, draw)


def _keep_file(data: bytes, other: bytes, draw: Random) -> bytes:
    return data if draw.random() < 0.9 else mutated_bytes(data or world_file(draw), other, draw)


def world_file(draw: Random) -> bytes:
    """Return one of the two valid files."""
    return draw.choice((_aggregator_file, _site_file))()


_MUTATE = by_section(_keep_file, _mutated_change, kinds=2)

TARGETS = (
    Target(
        "stored-aggregator",
        _prepare(_open_aggregator, _aggregator_file),
        (FedMedClipError,),
        lambda: _seeds(45),
        _MUTATE,
        weight=0.05,
    ),
    Target(
        "stored-site",
        _prepare(_open_site, _site_file),
        (FedMedClipError,),
        lambda: _seeds(38),
        _MUTATE,
        weight=0.05,
    ),
)
