"""The MQTT link: everything that a service needs of MQTT, for one main loop.

    link = Link(settings, client_id="site-a", will=Message("…/status", b"gone", retain=True))
    link.start()
    link.subscribe("fedmedclip/…/head/#")
    while True:
        match link.next_event(timeout=1.0):
            case Received(topic, payload, retained, acknowledge):
                store(payload)
                acknowledge()
            case Disconnected(reason, fatal=True): ...

MQTT 5 where the broker knows it, else 3.1.1; at-least-once delivery both ways in a persistent session; it
reconnects by itself. The outgoing queue is in memory: what must survive the process is kept by the caller
until its `Published` event.
"""

import itertools
from collections.abc import Sequence
from types import TracebackType

from fedmedclip.protocol.errors import LinkError
from fedmedclip.protocol.link.client import ClientFactory, Message, Will
from fedmedclip.protocol.link.events import (
    Connected,
    Disconnected,
    Event,
    Inbox,
    Published,
    PublishRefused,
    Received,
    SubscriptionRefused,
)
from fedmedclip.protocol.link.network import NetworkThread
from fedmedclip.protocol.link.session import Traffic
from fedmedclip.protocol.link.settings import LinkSettings

__all__ = [
    "Connected",
    "Disconnected",
    "Event",
    "Link",
    "LinkSettings",
    "Message",
    "PublishRefused",
    "Published",
    "Received",
    "SubscriptionRefused",
    "Traffic",
]

LONGEST_TOPIC_BYTES = 65535


class Link:
    """A persistent MQTT session under a stable client identifier.

    A `will` that is a function is asked for each attempt to connect, on the network thread.

    Use it from one thread, the service's main loop. As a context manager it starts and closes itself. With
    `lasting` false the session ends with each connection, and the broker keeps nothing of it.

    Raises LinkError for an unusable client identifier or will, InvalidInputError for certificate or
    password files that cannot be used.
    """

    def __init__(
        self, settings: LinkSettings, *, client_id: str, will: Will | None = None, lasting: bool = True
    ) -> None:
        if not client_id or not client_id.isprintable():
            raise LinkError(f"{client_id!r} cannot be an MQTT client identifier; use printable characters")
        self._limit = settings.maximum_message_bytes
        if isinstance(will, Message):
            self._check(will)
        self._inbox = Inbox()
        factory = ClientFactory(settings, client_id, will, lasting=lasting)
        self._network = NetworkThread(settings, factory, self._inbox, client_id)
        self._tokens = itertools.count(1)
        self._accepted = 0
        self._started = False
        self._ended = False

    def __enter__(self) -> "Link":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start connecting in the background; what happens comes as events."""
        self._started = True
        self._network.start()

    def subscribe(self, *topic_filters: str, qos: int = 1) -> None:
        """Subscribe now and after every reconnect; a refusal comes as SubscriptionRefused.

        The first time a process subscribes it gets the retained messages; after a reconnect again only from
        an MQTT 3.1.1 broker. Raises LinkError for a malformed filter.
        """
        for topic_filter in topic_filters:
            check_filter(topic_filter)
        filters = dict.fromkeys(topic_filters, qos)
        self._network.post(lambda: self._network.session.subscribe(filters))

    def read_retained(self, *topic_filters: str) -> None:
        """Let the broker send once more what it retains on topics that are subscribed to.

        Nothing happens while there is no connection. A topic on which nothing is retained stays silent.
        """
        self._network.post(lambda: self._network.session.read_retained(topic_filters))

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> int:
        """Queue a message and return its token, which Published or PublishRefused will carry.

        QoS 1 waits for a connection; QoS 0 is refused while there is none. Raises LinkError when the payload
        is above `maximum_message_bytes` or the topic is malformed.
        """
        return self._publish(Message(topic, payload, qos, retain))

    def next_event(self, timeout: float) -> Event | None:
        """Return the oldest event, or None when nothing happens within `timeout` seconds."""
        event = self._inbox.get(timeout)
        if isinstance(event, Disconnected) and event.fatal:
            self._ended = True
        if event is None and self._started and not self._ended and not self._network.is_alive():
            # The thread may have put its last words into the inbox between the two looks.
            event = self._inbox.get(0.0) or Disconnected("the MQTT network thread ended unexpectedly", True)
            self._ended = isinstance(event, Disconnected) and event.fatal
        return event

    def close(self, last_messages: Sequence[Message] = (), timeout: float = 5.0) -> None:
        """Publish `last_messages`, wait for the queue at most `timeout` seconds if connected, disconnect.

        The broker then does not publish the last will; it keeps the session. Closing again does nothing.
        """
        for message in last_messages:
            self._publish(message)
        if self._started:
            self._network.close(timeout)
        self._ended = True

    @property
    def unfinished(self) -> int:
        """Messages published and neither taken over by the broker nor refused."""
        return self._accepted - self._network.session.finished

    @property
    def largest_payload(self) -> int:
        """Bytes of the largest payload that settings and, once connected, the broker allow."""
        return self._network.session.largest_payload

    @property
    def traffic(self) -> Traffic:
        """Counters of payload bytes and messages since the start."""
        return self._network.session.traffic

    @property
    def sent_bytes(self) -> int:
        """MQTT payload bytes sent."""
        return self.traffic.sent_bytes

    @property
    def received_bytes(self) -> int:
        """MQTT payload bytes received."""
        return self.traffic.received_bytes

    def _publish(self, message: Message) -> int:
        self._check(message)
        token = next(self._tokens)
        self._accepted += 1
        self._network.post(lambda: self._network.session.publish(token, message))
        return token

    def _check(self, message: Message) -> None:
        check_topic(message.topic)
        if message.qos not in (0, 1):
            raise LinkError(f"QoS {message.qos} is not used here; take 0 or 1")
        if len(message.payload) > self._limit:
            raise LinkError(
                f"message of {len(message.payload)} bytes to {message.topic} is above "
                f"broker.maximum_message_bytes = {self._limit}; send it in chunks"
            )


def check_topic(topic: str) -> None:
    """Raise LinkError unless a message can be published to the topic."""
    if not topic or "\0" in topic or "+" in topic or "#" in topic:
        raise LinkError(f"{topic!r} cannot be published to: empty, or with one of + # NUL")
    if len(topic.encode()) > LONGEST_TOPIC_BYTES:
        raise LinkError(f"topic {topic[:40]}... is longer than {LONGEST_TOPIC_BYTES} bytes")


def check_filter(topic_filter: str) -> None:
    """Raise LinkError unless the topic filter is well-formed (MQTT 5, section 4.7.1)."""
    *levels, last = topic_filter.split("/")
    wildcards_alone = all("+" not in level or level == "+" for level in [*levels, last])
    hash_at_end = all("#" not in level for level in levels) and ("#" not in last or last == "#")
    if not topic_filter or "\0" in topic_filter or not wildcards_alone or not hash_at_end:
        raise LinkError(f"{topic_filter!r} is no topic filter: + and # stand alone, # only at the end")
    if len(topic_filter.encode()) > LONGEST_TOPIC_BYTES:
        raise LinkError(f"topic filter {topic_filter[:40]}... is longer than {LONGEST_TOPIC_BYTES} bytes")
