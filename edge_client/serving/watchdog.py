"""Ends what never ends: an image at which a decoder hangs would keep its thread, and in the end all of them.

A thread in foreign code cannot be stopped, so the process begins anew, in the same place, without the image.
Seconds are counted by the looks themselves: a process that was stopped for a night has not hung.
"""

from collections.abc import Mapping


class Watchdog:
    """Looks at how far work has come; `limit` looks without progress are too many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: dict[str, tuple[int, int]] = {}

    def hung(self, progress: Mapping[str, int]) -> list[str]:
        """Return what has come no farther for too many looks, from how far each work in hand has come."""
        seen: dict[str, tuple[int, int]] = {}
        for id, done in progress.items():
            before, looks = self._seen.get(id, (done, -1))
            seen[id] = (done, looks + 1 if before == done else 0)
        self._seen = seen
        return [id for id, (_, looks) in seen.items() if looks >= self._limit]
