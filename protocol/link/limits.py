"""What a broker says that it can do (CONNACK and SUBACK), and where no federation can work with it."""

from dataclasses import dataclass, replace
from typing import Any

from fedmedclip.protocol.link.settings import LinkSettings

# Messages handed to paho and not yet acknowledged by the broker.
SENDING_WINDOW = 8
# Fixed header, lengths, packet identifier and empty properties around topic and payload, at most.
PACKET_OVERHEAD = 16
# The longest topic of docs/protocol.md has 77.
TOPIC_BYTES = 80
# A block of 1,024 bytes with what is around it; every message that is no block is smaller.
LEAST_PAYLOAD_BYTES = 1152


class BrokerLacksError(Exception):
    """The broker cannot do what every federation needs; the text is a line for a person."""


@dataclass(frozen=True)
class BrokerLimits:
    """What one connection may ask of the broker.

    `payload` is the largest payload on a topic of the protocol, in bytes; `packet` the largest MQTT packet,
    None where the broker names no limit; `window` how many messages may await their acknowledgement;
    `aliases` how many topics may have a number instead.
    """

    payload: int
    packet: int | None = None
    window: int = SENDING_WINDOW
    aliases: int = 0

    def at_most(self, payload: int | None) -> "BrokerLimits":
        """Return these limits with a lower one for the payload, None for as they are."""
        if payload is None or payload >= self.payload:
            return self
        return replace(self, payload=payload, packet=payload + TOPIC_BYTES + PACKET_OVERHEAD)

    def takes(self, topic: str, payload: bytes) -> bool:
        """Whether a message fits the largest packet."""
        return self.packet is None or len(payload) + len(topic.encode()) + PACKET_OVERHEAD <= self.packet


def limits_of(properties: Any, settings: LinkSettings) -> BrokerLimits:
    """Read the properties of an MQTT 5 CONNACK (section 3.2.2.3), None where MQTT 3.1.1 has none.

    Raises BrokerLacksError where messages with QoS 1, retained messages or large enough packets are missing.
    """
    if getattr(properties, "MaximumQoS", 1) < 1:
        raise BrokerLacksError(without_acknowledgement(settings))
    if getattr(properties, "RetainAvailable", 1) == 0:
        raise BrokerLacksError(
            f"the broker at {settings.address} keeps no retained messages, so sites could not learn of the "
            "federation; allow them there (Mosquitto: retain_available true), or take another broker"
        )
    packet = getattr(properties, "MaximumPacketSize", None)
    payload = settings.maximum_message_bytes
    if packet is not None:
        payload = min(payload, packet - TOPIC_BYTES - PACKET_OVERHEAD)
    if payload < LEAST_PAYLOAD_BYTES:
        least = LEAST_PAYLOAD_BYTES + TOPIC_BYTES + PACKET_OVERHEAD
        raise BrokerLacksError(
            f"the broker at {settings.address} takes packets of at most {packet} bytes, {least} are needed; "
            "raise its limit (Mosquitto: max_packet_size)"
        )
    window = min(SENDING_WINDOW, getattr(properties, "ReceiveMaximum", SENDING_WINDOW))
    return BrokerLimits(payload, packet, window, getattr(properties, "TopicAliasMaximum", 0))


def without_will(settings: LinkSettings) -> str:
    """Say that the broker hangs up over a last will."""
    return (
        f"the broker at {settings.address} hangs up on whoever leaves a last will, without a word, and "
        "accepts the connection without one: it has QoS 0 alone or keeps no retained messages; allow both "
        "(Mosquitto: max_qos, retain_available true), or take another broker"
    )


def without_acknowledgement(settings: LinkSettings) -> str:
    """Say that the broker has QoS 0 alone."""
    return (
        f"the broker at {settings.address} does not acknowledge messages (it has QoS 0 alone), so updates "
        "would be lost; allow QoS 1 there (Mosquitto: max_qos), or take another broker"
    )
