"""A real queue that is answered at once, and answers to write."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Thread
from typing import Self

from fedmedclip.edge_client.serving.answer import Answer, Result
from fedmedclip.edge_client.serving.arrival import Arrival
from tests.edge_client.serving.queue_examples import PROVENANCE, finish, opened_queue

CLASSES = ("=mass", "none")


def answer_of(number: int, received_at: float | None = None) -> Answer:
    """Return an answer whose id is the number."""
    at = 1_700_000_000.0 + number if received_at is None else received_at
    probabilities = {"=mass": 0.75, "none": 0.25}
    result = Result(outcome="answered", label="=mass", probabilities=probabilities, ensemble_weight=0.5)
    return Answer(
        id=f"{number:032x}",
        door="folder",
        name="scan.png",
        received_at=at,
        answered_at=at + 1,
        results=[result],
        provenance=PROVENANCE,
    )


class AnsweringQueue:
    """Keeps what the worker was given: arrivals in order, contents by name."""

    def __init__(self, state, queue) -> None:
        self.state = state
        self.queue = queue
        self.arrivals: list[Arrival] = []
        self.contents: dict[str, list[bytes]] = {}
        self._changed = Condition()

    @classmethod
    @contextmanager
    def opened(cls, state: Path, most_waiting: int = 100) -> Iterator[Self]:
        """Answer whatever comes, inside the block."""
        with opened_queue(state, most_waiting) as queue:
            answering = cls(state, queue)
            thread = Thread(target=answering._run)
            thread.start()
            try:
                yield answering
            finally:
                queue.stop_accepting()
                thread.join()

    def wait_for(self, count: int, seconds: float = 10.0) -> None:
        """Return when so many arrivals came; fail when they do not, or more do."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arrivals) >= count, seconds), self.contents
            assert len(self.arrivals) == count

    def _run(self) -> None:
        while (work := self.queue.take()) is not None:
            with self._changed:
                self.arrivals.append(work.arrival)
                self.contents.setdefault(work.arrival.name, []).append(work.content.read_bytes())
                self._changed.notify_all()
            finish(self.queue, work)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a function returns true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
