"""What travels in a round, counted as MQTT payload bytes: everything that a broker would carry."""

from collections import Counter
from dataclasses import dataclass, field

from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.messages import Block


@dataclass
class Traffic:
    """Bytes by the message's name, from the sites and to them, and how many exchanges the sites began.

    Each message that a site sends is one exchange (a round trip on its link), except blocks, which follow
    the message that refers to them without waiting.
    """

    uplink: Counter[str] = field(default_factory=Counter)
    downlink: Counter[str] = field(default_factory=Counter)
    exchanges: int = 0

    def sent(self, topic: str, payload: bytes) -> None:
        """Count a payload that a site publishes."""
        kind = type(open_envelope(payload, topic).message)
        self.uplink[kind.__name__] += len(payload)
        self.exchanges += kind is not Block

    def received(self, topic: str, payload: bytes, sites: int = 1) -> None:
        """Count a payload that so many sites receive."""
        self.downlink[type(open_envelope(payload, topic).message).__name__] += sites * len(payload)
