"""What of the MQTT session outlives a connection: messages to send, subscriptions, counters.

Everything here runs on the network thread; `Traffic` and `finished` may be read from any thread.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fedmedclip.protocol.link.acknowledgements import Acknowledgements
from fedmedclip.protocol.link.aliases import TopicAliases
from fedmedclip.protocol.link.client import Message
from fedmedclip.protocol.link.events import Inbox, Published, PublishRefused, Received, SubscriptionRefused
from fedmedclip.protocol.link.limits import BrokerLacksError, BrokerLimits, without_acknowledgement
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.link.suspicion import CONTROL_SECONDS, MessageSuspicion

logger = logging.getLogger(__name__)

# After which a subscription that the broker refused is asked for again.
REFUSED_SECONDS = 60.0


@dataclass
class Traffic:
    """MQTT payload bytes and messages, and connections to the broker, since the start.

    A message that is sent again after a reconnect counts once; one that arrives again counts again.
    """

    sent_bytes: int = 0
    sent_messages: int = 0
    received_bytes: int = 0
    received_messages: int = 0
    connections: int = 0


class Session:
    """Sends and receives over whichever connection there is. `post` runs a command on the network thread."""

    def __init__(
        self, settings: LinkSettings, inbox: Inbox, post: Callable[[Callable[[], None]], None]
    ) -> None:
        self._settings = settings
        self.traffic = Traffic()
        self.finished = 0
        self._inbox = inbox
        self._post = post
        self._client: paho.Client | None = None
        self._connection = 0
        self._outgoing: deque[tuple[int, Message]] = deque()
        self._window: dict[int, tuple[int, Message]] = {}
        self._limits = BrokerLimits(payload=settings.maximum_message_bytes)
        self._suspect: int | None = None
        self._suspicion = MessageSuspicion()
        self._one_at_a_time = False
        self._held_until: float | None = None
        self._filters: dict[str, int] = {}
        self._granted: set[str] = set()
        self._asked: dict[int, list[str]] = {}
        self._refused_at: dict[str, float] = {}
        self.acknowledgements = Acknowledgements(inbox)
        self._aliases = TopicAliases()
        self._may_shorten = True

    @property
    def idle(self) -> bool:
        """True when nothing waits to be sent or acknowledged."""
        return not self._outgoing and not self._window

    @property
    def can_send(self) -> bool:
        """True when a message waits and the window has room."""
        if self._held_until is not None and time.monotonic() < self._held_until:
            return False
        limit = 1 if self._one_at_a_time else self._limits.window
        return self._client is not None and bool(self._outgoing) and len(self._window) < limit

    @property
    def largest_payload(self) -> int:
        """Bytes of the largest payload that settings and the last broker's word allow."""
        return self._limits.payload

    @property
    def sending_bytes(self) -> int:
        """Payload bytes of the largest message that the broker has not acknowledged."""
        return max((len(message.payload) for _, message in self._window.values()), default=0)

    def attach(self, client: paho.Client) -> None:
        """Take the callbacks of a new client that concern messages."""
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        self._outgoing.extendleft(reversed(self._window.values()))
        self._window.clear()

    def bounded(self, limits: BrokerLimits) -> BrokerLimits:
        """Return a broker's limits with what was learned of those that it does not name."""
        return limits.at_most(self._suspicion.largest_payload)

    def connected(self, client: paho.Client, limits: BrokerLimits) -> None:
        """Begin on an accepted connection: mind the broker's limits, subscribe again.

        Called before paho sends again what was not acknowledged.
        """
        self._client = client
        self.traffic.connections += 1
        self._held_until = time.monotonic() + CONTROL_SECONDS if self._suspicion.wants_control else None
        # A number for a topic, in what paho would send again, belongs to the connection that is gone.
        numbered = self._limits.aliases > 0
        self._limits = limits
        self._aliases = TopicAliases(limits.aliases if self._may_shorten else 0)
        unacceptable = any(not self._fits(message) for _, message in self._window.values())
        if self._one_at_a_time or numbered or unacceptable or len(self._window) > limits.window:
            client.drop_out_messages()
            self._outgoing.extendleft(reversed(self._window.values()))
            self._window.clear()
        if self._filters:
            self._ask(client, self._filters)

    def disconnected(self, *, blames_message: bool, hung_up: bool) -> str:
        """Stop using the connection. `blames_message`: the broker ended it over something that we sent;
        `hung_up`: soon after it had accepted it, without a word.

        A message that the broker cannot take would be sent again, and end the connection, for ever. So after
        such an ending the messages go one at a time, and one that ends the connection again is refused.
        Return what the broker lacks where no federation is possible with it, else an empty text.
        """
        self._client = None
        self._connection += 1
        self._asked.clear()
        self._refused_at.clear()
        self.acknowledgements.forget()
        lost = {packet: entry for packet, entry in self._window.items() if entry[1].qos == 0}
        for packet, (token, message) in lost.items():
            del self._window[packet]
            self._refuse(token, message, "the connection was lost")
        oldest = next(iter(self._window.values()), None)
        suspect = hung_up and self._suspicion.hung_up(None if oldest is None else oldest[0])
        if oldest is None or not (blames_message or suspect):
            return ""
        token, message = oldest
        alone, self._one_at_a_time = self._one_at_a_time, True
        self._may_shorten = False
        smaller = alone and self._suspicion.learn_limit(len(message.payload))
        self._suspect = token if alone and (blames_message or smaller) else None
        return self._suspicion.lacking(message) if alone and suspect and not smaller else ""

    def publish(self, token: int, message: Message) -> None:
        """Queue a message; QoS 0 is not queued while there is no connection."""
        if message.qos == 0 and self._client is None:
            self._refuse(token, message, "there is no connection")
        else:
            self._outgoing.append((token, message))

    def subscribe(self, filters: dict[str, int]) -> None:
        """Subscribe to topic filters with their QoS, now if connected and after every reconnect."""
        self._filters.update(filters)
        if self._client is not None:
            self._ask(self._client, filters)

    def read_retained(self, topic_filters: Iterable[str]) -> None:
        """Subscribe again, if connected, so that the broker sends what it retains."""
        filters = {name: self._filters[name] for name in topic_filters if name in self._filters}
        if self._client is not None and filters:
            self._granted -= filters.keys()
            self._ask(self._client, filters)

    def ask_again(self, now: float) -> None:
        """Ask once more for what was refused a while ago: rules follow the members, at times with delay."""
        due = [one for one, moment in self._refused_at.items() if now - moment >= REFUSED_SECONDS]
        if due and self._client is not None:
            for topic_filter in due:
                del self._refused_at[topic_filter]
            self._ask(self._client, {topic_filter: self._filters[topic_filter] for topic_filter in due})

    def send_waiting(self) -> None:
        """Hand messages to paho as far as the window allows."""
        if self._client is None:
            return
        if self._held_until is not None and time.monotonic() >= self._held_until:
            self._held_until = None
            self._suspicion.control_passed()
        if self._one_at_a_time and self.idle:
            self._one_at_a_time = False
        while self.can_send:
            token, message = self._outgoing.popleft()
            if token == self._suspect:
                self._one_at_a_time = False
                self._refuse(token, message, "the broker ended the connection each time it was sent")
            elif not self._fits(message):
                self._refuse(
                    token, message, f"the broker takes packets of at most {self._limits.packet} bytes"
                )
            else:
                self._hand_over(self._client, token, message)

    def _hand_over(self, client: paho.Client, token: int, message: Message) -> None:
        topic, properties = self._aliases.shorten(message.topic)
        info = client.publish(topic, message.payload, message.qos, message.retain, properties)
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise RuntimeError(f"packet identifier {info.mid} is still in use after 65535 messages")
        self._window[info.mid] = (token, message)
        self.traffic.sent_messages += 1
        self.traffic.sent_bytes += len(message.payload)

    def _fits(self, message: Message) -> bool:
        return self._limits.takes(message.topic, message.payload)

    def _refuse(self, token: int, message: Message, reason: str) -> None:
        self.finished += 1
        size = len(message.payload)
        self._inbox.put(PublishRefused(token, message.topic, f"message of {size} bytes: {reason}"))

    def _ask(self, client: paho.Client, filters: dict[str, int]) -> None:
        """Send a SUBSCRIBE packet.

        MQTT 5 lets us skip the retained messages that this process has received before; on a thin link a
        reconnect must not cost a download. MQTT 3.1.1 always sends them again.
        """
        requests: Any = list(filters.items())
        if client.protocol == MQTTProtocolVersion.MQTTv5:
            requests = []
            for topic_filter, qos in filters.items():
                known = topic_filter in self._granted
                handling = (
                    SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
                    if known
                    else (SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
                )
                requests.append((topic_filter, SubscribeOptions(qos=qos, retainHandling=handling)))
        _, packet = client.subscribe(requests)
        if packet is not None:
            self._asked[packet] = list(filters)

    def _on_subscribe(
        self, client: paho.Client, data: Any, packet: int, codes: list[ReasonCode], properties: Any
    ) -> None:
        for topic_filter, code in zip(self._asked.pop(packet, []), codes, strict=False):
            if code.is_failure:
                self._refused_at[topic_filter] = time.monotonic()
                self._granted.discard(topic_filter)
                self._inbox.put(SubscriptionRefused(topic_filter, code.getName().lower()))
            elif code.value < self._filters.get(topic_filter, 0):
                raise BrokerLacksError(without_acknowledgement(self._settings))
            else:
                self._granted.add(topic_filter)

    def _on_publish(
        self, client: paho.Client, data: Any, packet: int, code: ReasonCode, properties: Any
    ) -> None:
        entry = self._window.pop(packet, None)
        if entry is None:
            return
        token, message = entry
        if code.is_failure:
            self._refuse(token, message, f"the broker says: {code.getName().lower()}")
        else:
            self.finished += 1
            self._aliases.confirm(message.topic)
            self._inbox.put(Published(token))

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self.traffic.received_messages += 1
        self.traffic.received_bytes += len(message.payload)
        acknowledge = self._acknowledgement(client, message.mid, message.qos)
        try:
            topic = message.topic
        except UnicodeDecodeError:
            logger.warning("message dropped: its topic is not UTF-8")
            acknowledge()
            return
        self._inbox.put(Received(topic, bytes(message.payload), message.retain, acknowledge))

    def _acknowledgement(self, client: paho.Client, packet: int, qos: int) -> Callable[[], None]:
        connection = self._connection
        waiting = [packet] if qos else []

        def send() -> None:
            # Once, and only on the connection that delivered it: the broker uses the identifier again.
            if self._connection == connection and waiting:
                packet = waiting.pop()
                self.acknowledgements.hold(lambda: client.ack(packet, qos), time.monotonic())

        return lambda: self._post(send)
