"""What the aggregator keeps retained at the broker, and how that comes back when somebody changes it.

    published -> (seen changed -> published again after a while) | (not seen for long -> asked for -> absent
    -> published again)

The first change is mended within seconds. Where somebody goes on, each topic is mended after pauses that
double up to half a minute, so that who sends one byte does not make the aggregator send the same message to
every site without end. Where a broker lost a message and told nobody, a look every so often finds out.
"""

import logging
from dataclasses import dataclass

log = logging.getLogger("fedmedclip.aggregator")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
QUIET_SECONDS = 300.0
"""After so long without a change the next one is mended at once again."""
LOOK_SECONDS = 40.0
"""How often the broker is asked for what it retains."""
ANSWER_SECONDS = 10.0
"""How long it may take to send that."""


@dataclass
class _Kept:
    payload: bytes
    seen_at: float
    asked_at: float | None = None
    changed_at: float | None = None
    mended_at: float | None = None
    pause: float = FIRST_PAUSE_SECONDS


class Retained:
    """The topics that this aggregator alone writes, each with the newest message on it. Times are readings of
    a monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._connected = False

    def published(self, topic: str, payload: bytes, now: float) -> None:
        """Take note of what is published, retained, on a topic."""
        kept = self._kept.get(topic)
        if kept is None:
            self._kept[topic] = _Kept(payload, now)
        else:
            kept.payload = payload

    def connected(self, now: float) -> None:
        """Begin a connection, on which everything is published anew."""
        self._connected = True
        for kept in self._kept.values():
            kept.asked_at, kept.seen_at = None, now

    def disconnected(self) -> None:
        """Expect nothing until the next connection."""
        self._connected = False

    def seen(self, topic: str, payload: bytes, now: float) -> None:
        """Take note of a message on a topic; those on which nothing was published are of no interest.

        One of before the newest may still have been on its way: the newest follows it, and is seen too.
        """
        if (kept := self._kept.get(topic)) is None:
            return
        if payload == kept.payload:
            # What is as it should be now may have been put right by our own message of before.
            kept.seen_at, kept.asked_at, kept.changed_at = now, None, None
            return
        kept.asked_at = None
        if kept.changed_at is None:
            kept.changed_at = now

    def due(self, now: float) -> list[tuple[str, bytes]]:
        """Return topic and payload of what is to be published once more now."""
        if not self._connected:
            return []
        found = []
        for topic, kept in self._kept.items():
            if kept.asked_at is not None and now - kept.asked_at >= ANSWER_SECONDS:
                kept.asked_at, kept.changed_at = None, kept.changed_at or now
            if kept.changed_at is None or now - kept.changed_at < self._pause(kept, now):
                continue
            if kept.mended_at is None or now - kept.mended_at >= QUIET_SECONDS:
                kept.pause = FIRST_PAUSE_SECONDS
                log.warning("somebody changed what is retained on %s; putting it back", topic)
            else:
                kept.pause = min(2 * kept.pause, LONGEST_PAUSE_SECONDS)
            kept.changed_at, kept.mended_at, kept.seen_at = None, now, now
            found.append((topic, kept.payload))
        return found

    def to_look_at(self, now: float) -> list[str]:
        """Return the topics that were not seen for so long that the broker is to be asked for them."""
        if not self._connected:
            return []
        found = [
            topic
            for topic, kept in self._kept.items()
            if kept.changed_at is None and kept.asked_at is None and now - kept.seen_at >= LOOK_SECONDS
        ]
        for topic in found:
            self._kept[topic].asked_at = now
        return found

    def _pause(self, kept: _Kept, now: float) -> float:
        quiet = kept.mended_at is None or now - kept.mended_at >= QUIET_SECONDS
        return FIRST_PAUSE_SECONDS if quiet else kept.pause
