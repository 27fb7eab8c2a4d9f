"""What tells two states of a party apart: all that it holds, with times as ages.

Two states of one essence behave alike from then on. So what says nothing about what happens next is left
out, and a reading of the clock so old that its age makes no difference any more counts as just that old.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from benchmarks.liveness.clocks import (
    ASK_AGAIN_SECONDS,
    LEASE_SECONDS,
    NEXT_MEMBER_SECONDS,
    ROUND_SECONDS,
    SILENCE_SECONDS,
)

# Readings of the clock, and after how many seconds their age makes no difference any more.
_TIMES = {
    "heard_at": LEASE_SECONDS, "_first_delivery": ROUND_SECONDS, "_heard_at": SILENCE_SECONDS,
    "_asked_at": ASK_AGAIN_SECONDS, "_sent_at": ASK_AGAIN_SECONDS, "_train_not_before": 0.0,
    "_said_at": SILENCE_SECONDS, "_nobody_since": ROUND_SECONDS,
    "since": NEXT_MEMBER_SECONDS, "heard": ASK_AGAIN_SECONDS, "last_heard": ASK_AGAIN_SECONDS,
}  # fmt: skip
# What says nothing about what happens next: what only a log, the status or `settled` reads, which blocks were
# sent where nothing is cut into blocks, and what is the same in every state.
_IGNORED = frozenset(
    {"refused_messages", "_residuals", "left_at", "versions_held", "_drawn_at",
     "_blocks_sent_of_round", "floods", "_rations", "_complaints", "_plan_repeated_at",
     "configuration", "_store", "_state", "_learner", "_configuration", "_has_room", "specification",
     "_specification", "counted", "_install", "_codec", "_own_codec", "_rule", "_snapshot",
     "_identity", "store", "state", "learner", "chronicle", "_witness", "_traffic", "traffic",
     "_consents", "_contributions", "_permission", "_quorum", "wall_clock"}
)  # fmt: skip
# The wait after a refusal doubles, up to twice the shortest.
_REFUSALS_THAT_TELL = 2


def essence_of_memory(machine: Any, now: float) -> bytes:
    """Return the essence of what a party has in memory at `now`, 16 bytes."""
    return hashlib.blake2b(repr(_plain(machine, now, set())).encode(), digest_size=16).digest()


def essence_of_database(connection: sqlite3.Connection) -> bytes:
    """Return the essence of a database, 16 bytes: the rows of its tables, wherever they lie in the file."""
    digest = hashlib.blake2b(digest_size=16)
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        digest.update(repr(sorted(map(repr, connection.execute(f"SELECT * FROM {table}")))).encode())
    return digest.digest()


def _plain(thing: Any, now: float, seen: set[int], name: str = "") -> Any:
    """Return nested tuples that are equal for states that behave alike; what several parts share, once."""
    if name in _TIMES and thing is not None:
        return round(max(thing - now, -_TIMES[name]), 3)
    if name == "_refusals":
        return min(thing, _REFUSALS_THAT_TELL)
    if thing is None or isinstance(thing, str | bytes | int | float):
        return thing
    if isinstance(thing, np.ndarray):
        return thing.tobytes()
    if name == "_carriers":
        # Those of versions that are here are of no use any more: without blocks, each is used as it comes.
        return ()
    if isinstance(thing, msgspec.Struct):
        return msgspec.msgpack.encode(thing)
    if isinstance(thing, dict):
        return tuple(sorted((repr(key), _plain(value, now, seen)) for key, value in thing.items()))
    if isinstance(thing, set | frozenset):
        return tuple(sorted(map(repr, thing)))
    if isinstance(thing, list | tuple):
        return tuple(_plain(item, now, seen) for item in thing)
    if id(thing) in seen:
        return ()
    seen.add(id(thing))
    return tuple(_attributes(thing, now, seen))


def _attributes(thing: Any, now: float, seen: set[int]) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(vars(thing).items()):
        if name not in _IGNORED and not isinstance(value, Callable):  # type: ignore[arg-type]
            yield name, _plain(value, now, seen, name)
