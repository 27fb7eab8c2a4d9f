"""Warnings that come again for as long as their cause stands, in the log once a day."""

import logging

log = logging.getLogger("fedmedclip.aggregator")

_AGAIN_SECONDS = 86400.0


class Reminders:
    """When each line was logged last, by a reading of a monotonic clock."""

    def __init__(self) -> None:
        self._warned_at: dict[str, float] = {}

    def warn(self, words: str, line: str, now: float = 0.0, *, event: str | None = None) -> None:
        """Log a line within `words`, unless it was logged within a day; without `now`, unless it ever was."""
        if line not in self._warned_at or now - self._warned_at[line] >= _AGAIN_SECONDS:
            self._warned_at[line] = now
            log.warning(words, line, extra={"event": event})
