"""Topic aliases of MQTT 5 (section 3.3.2.3.4): a topic that the broker has confirmed travels as a number.

They belong to one connection, and only a broker that grants some gets any: nothing depends on them.
"""

from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

# A shorter topic takes no more than the property.
SHORTEST_TOPIC_BYTES = 5


class TopicAliases:
    """Those of one connection, `granted` of them at most."""

    def __init__(self, granted: int = 0) -> None:
        self._granted = granted
        self._numbers: dict[str, int] = {}
        self._confirmed: set[str] = set()

    def shorten(self, topic: str) -> tuple[str, Any]:
        """Return the topic and the properties to publish with.

        The topic is sent along until a message with its number was accepted: a broker may refuse the first.
        """
        worthwhile = len(topic.encode()) >= SHORTEST_TOPIC_BYTES and len(self._numbers) < self._granted
        if worthwhile and topic not in self._numbers:
            self._numbers[topic] = len(self._numbers) + 1
        if (number := self._numbers.get(topic)) is None:
            return topic, None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.TopicAlias = number
        return "" if topic in self._confirmed else topic, properties

    def confirm(self, topic: str) -> None:
        """A message on this topic was acknowledged, and accepted."""
        if topic in self._numbers:
            self._confirmed.add(topic)
