"""Saying that a round's update is not sent, so that nobody waits for it."""

from fedmedclip.edge_client.site.head_follower import SILENCE_SECONDS
from fedmedclip.protocol.messages import Abstain, Message


class Abstention:
    """What was said of which round, and when. No answer comes to it, so now and again it is repeated."""

    def __init__(self) -> None:
        self._round_number = 0
        self._said_at: float | None = None

    def repeat(self) -> None:
        """Say it again at once: whoever heard it may have forgotten."""
        self._said_at = None

    def due(self, round_number: int, reason: str, now: float) -> list[Message]:
        """Return what to send now, while the round is open."""
        said_at = self._said_at if round_number == self._round_number else None
        if said_at is not None and now - said_at < SILENCE_SECONDS:
            return []
        self._round_number, self._said_at = round_number, now
        return [Abstain(round_number, reason[:400])]
