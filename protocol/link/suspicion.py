"""What a broker lacks and does not say: it hangs up, again and again, and what was sent tells over what.

MQTT 3.1.1 has no reason codes: Mosquitto closes the connection over a last will, a retained message or a
packet that it does not take, and would at every attempt.
"""

import logging

from fedmedclip.protocol.link.client import Message
from fedmedclip.protocol.link.limits import LEAST_PAYLOAD_BYTES

logger = logging.getLogger(__name__)

# Connections in a row that have to end alike before chance is excluded.
ALIKE = 3
# The same before everything is given up over a message that cannot be smaller.
ALIKE_FOR_ALL = 6
# How long a connection has to last without the suspect message before it is what ends the others: a broker
# that is killed again and again, or a path that lets nothing stand, does not let it.
CONTROL_SECONDS = 1.0


class WillSuspicion:
    """Whether a broker that hangs up on CONNECT does so over the last will.

    After some attempts one is made without it. When that is accepted and the next one, with the will, is not,
    it is the will; a broker that was only starting accepts both.
    """

    def __init__(self, *, has_will: bool) -> None:
        self._has_will = has_will
        self._refusals = 0
        self._accepted_without = False

    @property
    def leave_out(self) -> bool:
        """Whether the next attempt has to be made without the will."""
        return self._has_will and self._refusals >= ALIKE and not self._accepted_without

    def refused(self) -> bool:
        """Learn that the broker hung up on CONNECT; return whether that is proved to be over the will."""
        self._refusals += 1
        return self._accepted_without

    def accepted(self, *, without: bool) -> None:
        """Learn that the broker accepted the connection, with the will or `without`."""
        self._accepted_without = without
        if not without:
            self._refusals = 0


class MessageSuspicion:
    """Over which message a broker hangs up: the oldest that it has not acknowledged, each time the same."""

    def __init__(self) -> None:
        self._token: int | None = None
        self._alike = 0
        self._control_passed = False
        self.largest_payload: int | None = None
        """Bytes of the largest payload that the broker may still take; None as long as nothing is known."""

    @property
    def wants_control(self) -> bool:
        """Whether the next connection has to last for `CONTROL_SECONDS` before anything is sent on it."""
        return self._alike >= ALIKE_FOR_ALL - 1

    def control_passed(self) -> None:
        """Learn that a connection on which nothing was sent has lasted."""
        self._control_passed = True

    def hung_up(self, token: int | None) -> bool:
        """Learn that the broker hung up before it acknowledged a message, None: none was on the way.

        Return whether the message of this token is suspect.
        """
        if token != self._token:
            self._alike, self._control_passed = 0, False
        self._alike += 1
        self._token = token
        return token is not None and self._alike >= ALIKE

    def learn_limit(self, size: int) -> bool:
        """Learn that the broker hung up over a message of `size` bytes that was sent alone.

        Return whether smaller ones may pass: then `largest_payload` is half of it.
        """
        if size <= LEAST_PAYLOAD_BYTES:
            return False
        self.largest_payload = max(LEAST_PAYLOAD_BYTES, size // 2)
        logger.warning(
            "the broker hangs up over a message of %d bytes; sending at most %d from now on "
            "(broker.maximum_message_bytes)", size, self.largest_payload,
        )  # fmt: skip
        return True

    def lacking(self, message: Message) -> str:
        """Return what the broker lacks when it hung up over a small message too often for chance,
        and not before it was sent."""
        if self._alike < ALIKE_FOR_ALL or not self._control_passed:
            return ""
        kept = "it keeps no retained messages (Mosquitto: retain_available true), " if message.retain else ""
        size = len(message.payload)
        return (
            f"hangs up, without a word, each time that {size} bytes are sent on {message.topic}: "
            f"{kept}it takes no packets of this size (Mosquitto: max_packet_size), its access rules "
            "forbid the topic, or another client has the same identifier"
        )
