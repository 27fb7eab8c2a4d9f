"""What the MQTT link tells the main loop, and the queue in which it waits."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# Above this many unread messages the link stops reading from the network (TCP holds the sender back).
UNREAD_LIMIT = 64


@dataclass(frozen=True)
class Connected:
    """The broker accepted us. `session_present`: it kept our subscriptions and queued messages.

    `protocol` is "5" or "3.1.1"; `largest_payload`, in bytes, the least of what the settings and the broker
    allow: heads are cut into blocks by it.
    """

    session_present: bool
    protocol: str
    largest_payload: int


@dataclass(frozen=True)
class Disconnected:
    """A connection ended or could not be made; `reason` is a sentence for a person.

    With `fatal` the link has given up, because trying again cannot help until a person changes something;
    otherwise it tries again by itself.
    """

    reason: str
    fatal: bool


@dataclass(frozen=True)
class Received:
    """A message. Call `acknowledge` from the main loop once its content is stored durably, or refused.

    Until then the broker keeps it, and delivers it again after a reconnect: the same content may arrive
    more than once. An acknowledgement after the connection has changed does nothing.
    """

    topic: str
    payload: bytes = field(repr=False)
    retained: bool
    acknowledge: Callable[[], None] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Published:
    """The broker has taken over the message (QoS 1), or it was handed to the network (QoS 0)."""

    token: int


@dataclass(frozen=True)
class PublishRefused:
    """The message will not be delivered and is not tried again; `reason` is for a person."""

    token: int
    topic: str
    reason: str


@dataclass(frozen=True)
class SubscriptionRefused:
    """The broker does not let this client subscribe to the topic filter. The link asks again, each minute."""

    topic_filter: str
    reason: str


Event = Connected | Disconnected | Received | Published | PublishRefused | SubscriptionRefused


class Inbox:
    """Events on their way from the network thread to the main loop.

    `put` never blocks, so that the network thread can go on answering pings; it is bounded because the
    network thread reads nothing more while `full`.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._unread = 0
        # Since when the main loop waits for an event; None while it works. A reading of the monotonic clock.
        self.waiting_since: float | None = None

    @property
    def full(self) -> bool:
        """True while too many received messages wait."""
        return self._unread >= UNREAD_LIMIT

    def put(self, event: Event) -> None:
        """Append an event."""
        with self._changed:
            self._events.append(event)
            self._unread += isinstance(event, Received)
            self._changed.notify()

    def get(self, timeout: float) -> Event | None:
        """Return the oldest event, or None when there is none within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            try:
                while not self._events:
                    now = time.monotonic()
                    if now >= deadline:
                        return None
                    self.waiting_since = self.waiting_since or now
                    self._changed.wait(deadline - now)
            finally:
                self.waiting_since = None
            event = self._events.popleft()
            self._unread -= isinstance(event, Received)
            return event
