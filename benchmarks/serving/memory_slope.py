"""Whether a service's memory grows with the requests that it answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event, Thread

from benchmarks.serving.resident import Resident

_SECONDS = 1.0


@dataclass
class MemoryWatch:
    """Notes memory each second, beside how many requests are answered, until it is stopped."""

    service: Resident
    door: str
    samples: list[tuple[int, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopped = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Note no more."""
        self._stopped.set()
        self._thread.join()

    def peak(self) -> dict[str, float]:
        """Return the largest resident and proportional memory, in MB."""
        return {
            "rss_mb": max(rss for _, rss, _ in self.samples),
            "pss_mb": max(pss for _, _, pss in self.samples),
        }

    def bytes_per_request(self, leave_out: float = 0.2) -> float:
        """Return the slope of a line through memory over requests, without the first part of them."""
        last = self.samples[-1][0]
        return 1e6 * slope([(count, rss) for count, rss, _ in self.samples if count >= leave_out * last])

    def _run(self) -> None:
        while True:
            memory = self.service.memory()
            self.samples.append((self.service.answered(self.door), memory["rss"], memory["pss"]))
            if self._stopped.wait(_SECONDS):
                return


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line of least squares through points."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
