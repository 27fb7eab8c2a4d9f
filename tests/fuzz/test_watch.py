"""The fuzzer notices what it is for, and its inputs come again with their seed."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzz.mutations import by_section, mutated_bytes, mutated_json, mutated_msgpack, mutated_text
from benchmarks.fuzz.sections import contents, join, split
from benchmarks.fuzz.target import Target, always
from benchmarks.fuzz.watch import Watch
from benchmarks.fuzz.worker import Worker, mutants
from fedmedclip.protocol.errors import HeadError, MessageError


class TwoLinesError(MessageError):
    """What a careless author could write."""

    def __str__(self) -> str:
        return "first\nsecond"


def fail(error: BaseException) -> Callable[[bytes], None]:
    def take(data: bytes) -> None:
        raise error

    return take


def work(data: bytes) -> None:
    until = time.thread_time() + 0.03
    while time.thread_time() < until:
        pass


def target_of(take: Callable[[bytes], None]) -> Target:
    return Target("example", always(take), (MessageError,), lambda: [b"valid"], most_bytes=1 << 20)


@pytest.mark.parametrize(
    ("take", "traced", "kind"),
    [
        (fail(KeyError("x")), False, "exception"),
        (fail(HeadError("another error of ours")), False, "exception"),
        (fail(TwoLinesError()), False, "message"),
        (fail(MessageError("")), False, "message"),
        (work, False, "slow"),
        (lambda data: [bytearray(2 << 20)].clear(), True, "memory"),
        (fail(MessageError("refused")), False, None),
        (lambda data: None, True, None),
    ],
)
def test_what_is_wrong_with_an_input_is_noticed(
    take: Callable[[bytes], None], traced: bool, kind: str | None
) -> None:
    found = Watch(target_of(take), take, seconds=0.02).look(b"input", traced=traced)
    assert (found and found.kind) == kind
    assert found is None or found.data == b"input"


def test_an_input_that_ends_the_process_is_kept(tmp_path: Path) -> None:
    def take(data: bytes) -> None:
        if data != b"valid":
            os._exit(9)

    report = Worker(target_of(take), 5, "0", "mutations", tmp_path).finish()
    assert report.crash is not None
    assert report.crash.kind == "crash"
    assert report.crash.data not in (b"", b"valid")


def test_what_is_found_is_written_down_once_for_each_fault(tmp_path: Path) -> None:
    def take(data: bytes) -> None:
        if data != b"valid":
            raise KeyError(data)

    report = Worker(target_of(take), 20, "0", "mutations", tmp_path).finish()
    assert (report.inputs, report.crash) == (21, None)
    assert len(list((tmp_path / "findings" / "example").glob("exception-*.bin"))) == 1


def test_the_same_seed_gives_the_same_inputs() -> None:
    target = target_of(lambda data: None)
    assert list(mutants(target, [b"valid"], 50, "1")) == list(mutants(target, [b"valid"], 50, "1"))
    assert list(mutants(target, [b"valid"], 50, "1")) != list(mutants(target, [b"valid"], 50, "2"))


def test_sections_are_what_was_joined_and_any_bytes_are_sections() -> None:
    sections = [(1, b"one"), (255, b""), (0, bytes(300))]
    assert split(join(sections)) == sections
    assert contents(join(sections), 4) == [b"one", b"", bytes(300), b""]
    assert split(b"\x05\xff\xff\xffrest\x00") == [(5, b"rest\x00")]
    assert split(b"\x01\x02") == []


@pytest.mark.parametrize(
    "mutate", [mutated_bytes, mutated_msgpack, mutated_json, mutated_text, by_section(mutated_bytes)]
)
def test_a_mutation_changes_most_inputs(mutate: Callable[..., bytes]) -> None:
    data = join([(0, b'{"a": [1, 2, "three"]}')])
    changed = [mutate(data, data, Random(number)) for number in range(200)]
    assert len(set(changed) - {data}) > 100
