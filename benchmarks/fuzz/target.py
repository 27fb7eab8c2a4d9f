"""What is fuzzed: something that takes bytes, and what it may say to them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fuzz.mutations import Mutation, mutated_bytes
from fedmedclip.protocol.errors import FedMedClipError

Take = Callable[[bytes], None]
"""Hands one input to what is fuzzed. Raises whatever that raises, and AssertionError where it lies."""


@dataclass(frozen=True)
class Target:
    """One place where bytes of others come in.

    `prepare` makes what takes the inputs; it may keep files in the folder that it is given. `promised` are
    the only errors that may leave it. `seeds` are valid inputs, `mutate` what makes hostile ones of them.
    `weight` is this target's part of all inputs, in proportion to the others. One input takes at most
    `most_bytes` of memory beside what was there before.
    """

    name: str
    prepare: Callable[[Path], Take]
    promised: tuple[type[FedMedClipError], ...]
    seeds: Callable[[], list[bytes]]
    mutate: Mutation = mutated_bytes
    weight: float = 1.0
    most_bytes: int = 32 << 20


def always(take: Take) -> Callable[[Path], Take]:
    """Return the `prepare` of a target that needs no files."""
    return lambda folder: take
