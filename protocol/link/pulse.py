"""When a silent connection is tested, and when it is given up."""

# A broker that is there answers a ping in less, on any link that carries MQTT at all.
ANSWER_SECONDS = 10.0
# The answer comes after what was sent before it: a message needs this time more on the thinnest link.
SLOWEST_BYTES_PER_SECOND = 1000.0


class Pulse:
    """Watches one connection; every time is in seconds of one clock.

    paho's own watch gives a ping the time of a whole keepalive, and none to the message before it: a short
    keepalive would end every connection on which a large message passes slowly.
    """

    def __init__(self, keepalive_seconds: float, now: float) -> None:
        self._keepalive = keepalive_seconds
        self._heard = now
        self._sent = now
        self._asked: float | None = None

    def heard(self, now: float) -> None:
        """Something came from the broker, be it part of a message: that answers a ping too."""
        self._heard = now
        self._asked = None

    def sent(self, now: float) -> None:
        """Something went to the broker, which ends connections of clients that say nothing."""
        self._sent = now

    def ping_due(self, now: float) -> bool:
        """Whether to ping now: nothing came, or nothing went, for the keepalive, and no ping is open."""
        return self._asked is None and now - min(self._heard, self._sent) >= self._keepalive

    def asked(self, now: float) -> None:
        """A ping was sent."""
        self._asked = self._sent = now

    def lost(self, now: float, sending_bytes: int) -> bool:
        """Whether the answer is overdue, with a message of `sending_bytes` unacknowledged on the way."""
        patience = ANSWER_SECONDS + sending_bytes / SLOWEST_BYTES_PER_SECOND
        return self._asked is not None and now - self._asked > patience

    def silence(self, now: float) -> float:
        """Seconds since something came."""
        return now - self._heard
