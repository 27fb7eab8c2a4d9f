"""Which packets passed a wire: what of their bytes was for whom, from IP down to the encoded heads.

`Recorder` is a listener for `Wire`. It takes apart TCP connections to a broker without TLS that it sees
from their beginning: IPv4 and TCP headers, MQTT packets and, in each PUBLISH, envelope and encoded head.
"""

from collections import Counter
from dataclasses import dataclass, field

from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.errors import MessageError

_MQTT_NAMES = {
    1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 8: "SUBSCRIBE", 9: "SUBACK", 12: "PINGREQ",
    13: "PINGRESP", 14: "DISCONNECT",
}  # fmt: skip


# MQTT 5, section 3.3.2.3.4; this software sends no other property with a message.
_TOPIC_ALIAS = b"\x23"


@dataclass
class _Stream:
    """One direction of a connection: the next byte that is expected, what waits for the rest, and the topics
    that have numbers.
    """

    next_sequence: int = 0
    waiting: bytes = b""
    topics: dict[int, str] = field(default_factory=dict)


@dataclass
class Recorder:
    """Counts packets and bytes by what they are; keys are (up, kind)."""

    protocol: int = 5
    times: Counter[tuple[bool, str]] = field(default_factory=Counter)
    sizes: Counter[tuple[bool, str]] = field(default_factory=Counter)
    head_bytes: Counter[bool] = field(default_factory=Counter)
    _heads: set[tuple[bool, bytes]] = field(default_factory=set)
    _streams: dict[bytes, _Stream] = field(default_factory=dict)

    def __call__(self, up: bool, packet: bytes) -> None:
        """Take one IP packet."""
        if packet[0] >> 4 != 4 or packet[9] != 6:
            self._note(up, "other IP", len(packet))
            return
        ip_header = 4 * (packet[0] & 15)
        tcp_header = 4 * (packet[ip_header + 12] >> 4)
        sequence = int.from_bytes(packet[ip_header + 4 : ip_header + 8])
        flags = packet[ip_header + 13]
        segment = packet[ip_header + tcp_header :]
        ports = packet[ip_header : ip_header + 4]
        if flags & 2:
            self._streams[ports] = _Stream((sequence + 1) & 0xFFFFFFFF)
        stream = self._streams.setdefault(ports, _Stream())
        fresh = bool(segment) and sequence == stream.next_sequence
        kind = "headers of data" if fresh else "sent again" if segment else "acknowledgement alone"
        self._note(up, kind, ip_header + tcp_header + (0 if fresh else len(segment)))
        if fresh:
            stream.next_sequence = (sequence + len(segment)) & 0xFFFFFFFF
            stream.waiting += segment
            while (size := _mqtt_size(stream.waiting)) is not None:
                self._mqtt(up, stream, stream.waiting[:size])
                stream.waiting = stream.waiting[size:]

    def table(self, divisor: float) -> str:
        """Return a table of everything so far: times and bytes, divided by `divisor`, largest first."""
        lines = ["| way | what | times | bytes |", "|---|---|---|---|"]
        for (up, kind), size in sorted(self.sizes.items(), key=lambda item: (not item[0][0], -item[1])):
            times = self.times[up, kind] / divisor
            lines.append(f"| {'up' if up else 'down'} | {kind} | {times:.2f} | {size / divisor:,.0f} |")
        return "\n".join(lines)

    def copy(self) -> "Recorder":
        """Return the counts as they are now."""
        return Recorder(times=self.times.copy(), sizes=self.sizes.copy(), head_bytes=self.head_bytes.copy())

    def clear(self) -> None:
        """Begin to count anew, on the connections that there are."""
        self.times.clear()
        self.sizes.clear()
        self.head_bytes.clear()

    def _note(self, up: bool, kind: str, size: int) -> None:
        self.times[up, kind] += 1
        self.sizes[up, kind] += size

    def _mqtt(self, up: bool, stream: _Stream, packet: bytes) -> None:
        name = _MQTT_NAMES.get(packet[0] >> 4, "other MQTT")
        if name == "PUBLISH":
            self._publish(up, stream, packet)
        else:
            self._note(up, name, len(packet))

    def _publish(self, up: bool, stream: _Stream, packet: bytes) -> None:
        body = _length_end(packet)
        topic_bytes = int.from_bytes(packet[body : body + 2])
        topic = packet[body + 2 : body + 2 + topic_bytes].decode()
        start = body + 2 + topic_bytes + (2 if packet[0] & 6 else 0)
        if self.protocol == 5:
            properties = packet[start + 1 : start + 1 + packet[start]]
            start += 1 + packet[start]
            if properties[:1] == _TOPIC_ALIAS:
                number = int.from_bytes(properties[1:3])
                topic = stream.topics.setdefault(number, topic)
        payload = packet[start:]
        try:
            message = open_envelope(payload, topic).message
        except MessageError:
            self._note(up, "PUBLISH of something else", len(packet))
            return
        name = type(message).__name__
        head = getattr(message, "data", getattr(message, "payload", None))
        encoded = len(head) if isinstance(head, bytes) else 0
        self._note(up, f"{name}: topic and MQTT header", start)
        self._note(up, f"{name}: envelope, signature, fields", len(payload) - encoded)
        if isinstance(head, bytes):
            again = (up, head) in self._heads
            self._heads.add((up, head))
            self._note(up, f"{name}: encoded head{', again' if again else ''}", encoded)
            if not again:
                self.head_bytes[up] += encoded


def _length_end(packet: bytes) -> int:
    """Return where the variable header begins: after type and remaining length."""
    end = 1
    while packet[end] & 128:
        end += 1
    return end + 1


def _mqtt_size(data: bytes) -> int | None:
    """Return the size of the first MQTT packet, None where it is not whole."""
    length = 0
    for place, byte in enumerate(data[1:5]):
        length += (byte & 127) << (7 * place)
        if byte < 128:
            size = 2 + place + length
            return size if len(data) >= size else None
    return None
