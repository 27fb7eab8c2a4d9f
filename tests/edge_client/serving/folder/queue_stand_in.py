"""A queue in memory that answers at once, with the door and outlet that a folder has."""

import shutil
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.edge_client.serving.answer import Answer, Result
from fedmedclip.edge_client.serving.arrival import Accepted, Arrival

CLASSES = ("=mass", "none")
PROVENANCE = Provenance(software="fedmedclip-edge 0", bundle="b" * 64, model="m", precision="float32")


def answer_of(number: int, name: str = "scan.png", received_at: float | None = None) -> Answer:
    """Return an answer whose id is the number."""
    at = 1_700_000_000.0 + number if received_at is None else received_at
    probabilities = {"=mass": 0.75, "none": 0.25}
    result = Result(outcome="answered", label="=mass", probabilities=probabilities, ensemble_weight=0.5)
    return Answer(
        id=f"{number:032x}",
        door="folder",
        name=name,
        received_at=at,
        answered_at=at + 1,
        results=[result],
        provenance=PROVENANCE,
    )


@dataclass
class QueueStandIn:
    """Keeps what it accepted: arrivals in order, contents by path. `refusing` is raised instead."""

    incoming: Path
    arrivals: list[Arrival] = field(default_factory=list)
    contents: dict[str, list[bytes]] = field(default_factory=dict)
    refusing: Exception | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)
    ids: dict[str, str] = field(default_factory=dict)

    def accept(self, arrival: Arrival) -> Future[Accepted]:
        """Take the content as the queue does: what is in `incoming` is moved."""
        future: Future[Accepted] = Future()
        if self.refusing is not None:
            future.set_exception(self.refusing)
            return future
        with self.changed:
            known = arrival.key in self.ids
            id = self.ids.setdefault(arrival.key, f"{len(self.ids):032x}")
            if not known:
                assert isinstance(arrival.content, Path)
                taken = self.incoming.parent / id
                shutil.move(arrival.content, taken)
                self.contents.setdefault(arrival.name, []).append(taken.read_bytes())
                self.arrivals.append(arrival)
            self.changed.notify_all()
        future.set_result(Accepted(id, known))
        return future

    def wait(self, id: str) -> Future[Answer]:
        """Return an answer at once."""
        future: Future[Answer] = Future()
        future.set_result(answer_of(int(id, 16)))
        return future

    def wait_for(self, count: int, seconds: float = 10.0) -> None:
        """Return when so many arrivals came; fail when they do not."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.arrivals) >= count, seconds), self.contents
        assert len(self.arrivals) == count


def eventually(condition: object, seconds: float = 10.0) -> None:
    """Wait until a function returns true."""
    assert callable(condition)
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
