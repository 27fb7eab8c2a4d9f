"""PUBACK packets that wait for something that they can travel with.

An acknowledgement of 4 bytes costs about 104 more when it travels alone: a TCP segment's headers, and those
of the segment that acknowledges it. While the main loop works on what it has received, it may well publish
something; when it waits for the next event, it will not.
"""

from collections.abc import Callable

from fedmedclip.protocol.link.events import Inbox

# For how long the main loop has to have waited for events.
IDLE_SECONDS = 0.05
# How long an acknowledgement is held back while the main loop works: brokers have patience, but not for ever,
# and what is not acknowledged when the connection ends is delivered again.
LONGEST_SECONDS = 2.0
# A broker may have as few as ten messages on their way to us.
MOST_HELD = 4


class Acknowledgements:
    """Those of one connection that were called for and not sent. Times are in seconds of one clock."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._held: list[Callable[[], object]] = []
        self._first = 0.0
        self._last = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, send: Callable[[], object], now: float) -> None:
        """Take one; `send` hands it to the network."""
        if not self._held:
            self._first = now
        self._last = now
        self._held.append(send)

    def due(self, now: float) -> bool:
        """Whether to send them although nothing goes with them."""
        if not self._held:
            return False
        waiting = self._inbox.waiting_since
        idle = waiting is not None and now - max(waiting, self._last) >= IDLE_SECONDS
        return idle or len(self._held) >= MOST_HELD or now - self._first >= LONGEST_SECONDS

    def send(self) -> None:
        """Send all, in the order in which they came."""
        held, self._held = self._held, []
        for send in held:
            send()

    def forget(self) -> None:
        """Drop them: the connection that delivered the messages is gone, and the broker sends them again."""
        self._held.clear()
