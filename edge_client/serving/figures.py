"""What a running service counts: numbers, no names and no images."""

from bisect import bisect_left
from collections import Counter
from threading import Lock

import msgspec

from fedmedclip.edge_client.serving.answer import Answer

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper ends of the classes of waiting times; the last class is what took longer."""


class Counts(msgspec.Struct, frozen=True):
    """What was counted since the process began.

    `results` are images by door and outcome, `labels` answered images by class. `waited` counts files by the
    seconds from acceptance to answer (classes of `SECONDS`), `waited_sum` adds these up.
    """

    results: dict[tuple[str, str], int]
    labels: dict[str, int]
    waited: list[int]
    waited_sum: float


class Figures:
    """Counts answers; for any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._results: Counter[tuple[str, str]] = Counter()
        self._labels: Counter[str] = Counter()
        self._waited = [0] * (len(SECONDS) + 1)
        self._waited_sum = 0.0

    def count(self, answer: Answer) -> None:
        """Count an answer that is on disk."""
        seconds = max(answer.answered_at - answer.received_at, 0.0)
        with self._lock:
            self._waited[bisect_left(SECONDS, seconds)] += 1
            self._waited_sum += seconds
            for result in answer.results:
                self._results[answer.door, result.outcome] += 1
                if result.label is not None:
                    self._labels[result.label] += 1

    def counts(self) -> Counts:
        """Return what was counted so far."""
        with self._lock:
            return Counts(
                dict(self._results),
                dict(self._labels),
                list(self._waited),
                self._waited_sum,
            )
