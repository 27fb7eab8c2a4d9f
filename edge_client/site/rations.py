"""How often a site answers the aggregator's requests: a copy of one that is sent again costs no whole uplink.

An answer may be a thousand times its request. The aggregator asks again after 20 s; whoever else sends its
requests again gets no more answers than it does.
"""

from fedmedclip.protocol.allowance import Allowance
from fedmedclip.protocol.messages import BlockRequest, StateRequest

BURST = 6
SECONDS_PER_ANSWER = 20.0

LOGGED_AT_ONCE = 20.0
"""Refused messages that are logged one by one."""
SECONDS_PER_LOGGED = 60.0
"""How long one of them takes to come back."""


class Rations:
    """Answers that are left for each kind of request. Times are readings of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._left = {
            kind: Allowance(BURST, SECONDS_PER_ANSWER, 0.0) for kind in (BlockRequest, StateRequest)
        }

    def allow(self, request: BlockRequest | StateRequest, now: float) -> bool:
        """Whether to answer a request now."""
        return self._left[type(request)].take(now)
