"""What the aggregator publishes: signed with the coordinator's key, and what is retained is put back."""

import time
from dataclasses import dataclass

from fedmedclip.aggregator.authority.broker_access import CONTROL_TOPIC
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.retained import Retained
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.signature import SigningKey

ROOM = 64
"""Messages in the link's queue above which requests for heads have to wait."""


@dataclass(frozen=True)
class Plain:
    """Bytes to publish as they are: not a message of the federation's protocol."""

    topic: str
    payload: bytes
    retain: bool = False


class Publisher:
    """Publishes on a link. `key` signs, and may be replaced. Times are readings of a monotonic clock."""

    def __init__(self, link: Link, key: SigningKey, coordinator: Coordinator) -> None:
        self._link = link
        self.key = key
        self._coordinator = coordinator
        self.retained = Retained()

    def publish(self, outgoing: list[Outgoing]) -> None:
        """Sign and publish messages of the run."""
        for item in outgoing:
            payload = seal(item.message, item.topic, self.key, self._coordinator.plan.identity)
            if item.retain:
                self.retained.published(item.topic, payload, time.monotonic())
            self._link.publish(item.topic, payload, retain=item.retain)

    def publish_plain(self, messages: list[Plain]) -> None:
        """Publish what is signed already, or needs no signature."""
        for plain in messages:
            self._link.publish(plain.topic, plain.payload, retain=plain.retain)

    def command_broker(self, commands: list[bytes]) -> None:
        """Give commands to the broker's plugin that knows who may do what."""
        for payload in commands:
            self._link.publish(CONTROL_TOPIC, payload)

    def mend_retained(self, now: float) -> None:
        """Put back what somebody has cleared or replaced at the broker, and look now and again."""
        for topic, payload in self.retained.due(now):
            self._link.publish(topic, payload, retain=True)
        if self._link.unfinished < ROOM and (topics_to_read := self.retained.to_look_at(now)):
            self._link.read_retained(*topics_to_read)
