"""Which new files are complete: those that did not change between two looks, and do not lack their end.

Some programs write a file at once at its full size, and fill it later. A file of a kind whose last bytes are
known is given more time when it lacks them; after that it is taken as it is, and answered by what is wrong.
"""

from fedmedclip.edge_client.serving.folder.listing import Found, Stamp

PATIENCE = 15.0
"""How many times `settle_seconds` a file may lack its end."""

LONGEST_PAUSE = 300.0
"""Seconds between two tries to read a file that cannot be read."""

END_BYTES = 1024
# How files of a kind begin, and what stands near their end.
_ENDS = (
    (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"),
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"GIF8", b"\x3b"),
)


class Settling:
    """The files that are not yet known to be complete. Times are seconds of a clock that never goes back."""

    def __init__(self, settle_seconds: float) -> None:
        self._seconds = settle_seconds
        self._seen: dict[str, tuple[Stamp, float]] = {}
        self._pauses: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def is_settled(self, found: Found, now: float) -> bool:
        """Whether the file may be read: it is as it was `settle_seconds` ago."""
        stamp, since = self._seen.get(found.path, (None, now))
        if stamp != found.stamp:
            self._seen[found.path] = (found.stamp, now)
            self._pauses.pop(found.path, None)
            return False
        return now - since >= self._seconds and now >= self._pauses.get(found.path, (0.0, 0.0))[0]

    def may_lack_its_end(self, found: Found, now: float) -> bool:
        """Whether a file that seems cut off is given more time."""
        _, since = self._seen.get(found.path, (None, now))
        return now - since < PATIENCE * self._seconds

    def pause(self, found: Found, now: float) -> bool:
        """Leave a file alone for a while, each time for longer; return whether it is the first time."""
        _, last = self._pauses.get(found.path, (0.0, 0.0))
        seconds = min(LONGEST_PAUSE, 2 * last or self._seconds)
        self._pauses[found.path] = (now + seconds, seconds)
        return last == 0.0

    def done(self, path: str) -> None:
        """Forget a file that is dealt with."""
        self._seen.pop(path, None)
        self._pauses.pop(path, None)

    def keep(self, present: set[str]) -> None:
        """Forget the files that are gone."""
        for path in self._seen.keys() - present:
            self.done(path)


def lacks_its_end(head: bytes, end: bytes) -> bool:
    """Whether a file that begins with `head` is cut off, by its last `END_BYTES` bytes."""
    return any(
        (head.startswith(start) and mark not in end) or (len(head) < len(start) and start.startswith(head))
        for start, mark in _ENDS
    )
