"""How long a site waits for an aggregator that does not answer: for ever, but for a run that is over."""

import logging

log = logging.getLogger("fedmedclip.site")

ANSWER_SECONDS = 20.0
"""How long after a connection an aggregator that is there has answered; what is retained came long before."""
LONGEST_SECONDS = 60.0
"""How long a site whose run is over waits for a broker that might hold the plan of a later one."""


class Patience:
    """Times are readings of a monotonic clock, in seconds."""

    def __init__(self, federation: str) -> None:
        self._federation = federation
        self._alone_since: float | None = None
        self._connected_at: float | None = None
        self._says_at = 0.0

    def connected(self, now: float) -> None:
        """Begin to wait for an answer on this connection."""
        self._connected_at, self._says_at = now, now + ANSWER_SECONDS

    def disconnected(self) -> None:
        """Expect no answer until the next connection."""
        self._connected_at = None

    def ends(self, *, joined: bool, run_over: bool, now: float) -> bool:
        """Whether to wait no longer: the run is over, and a later one would have been seen by now.

        Logs from time to time that the aggregator does not answer.
        """
        if joined:
            self._alone_since = None
            return False
        if self._alone_since is None:
            self._alone_since = now
        since, connected_at = self._alone_since, self._connected_at
        if run_over and now - since >= LONGEST_SECONDS:
            return True
        if connected_at is None:
            return False
        if run_over:
            return now - max(since, connected_at) >= ANSWER_SECONDS
        if now >= self._says_at:
            log.info("still waiting for an answer of the aggregator of federation %s", self._federation)
            self._says_at = now + 10 * ANSWER_SECONDS
        return False
