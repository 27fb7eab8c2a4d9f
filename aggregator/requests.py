"""Requests for heads and blocks: each site has at most one unanswered, and so many answers in a time.

An answer may be a thousand times its request, so it is made only when the link has room for it. A site that
asks faster than the rate has its newest request answered when its turn comes, and the others never: memory is
bounded by the number of members, whatever arrives.
"""

from collections.abc import Callable

from fedmedclip.protocol.allowance import Allowance
from fedmedclip.protocol.messages import BlockRequest, HeadRequest

Request = HeadRequest | BlockRequest

BURST = 8
"""Answers that a site may have at once after a silence."""
SECONDS_PER_ANSWER = 2.0
"""How long one of them takes to come back."""


class Requests:
    """The newest unanswered request of each site, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[str, Request] = {}
        self._allowances: dict[str, Allowance] = {}

    def put(self, site: str, request: Request) -> None:
        """Take a request; one of the same site that still waits is forgotten."""
        self._waiting[site] = request

    def forget(self, site: str) -> None:
        """Forget a site that is no member any more."""
        self._waiting.pop(site, None)
        self._allowances.pop(site, None)

    def due(self, now: float, has_room: Callable[[], bool]) -> list[tuple[str, Request]]:
        """Take out the requests that may be answered now, while there is room for their answers."""
        found = []
        for site in list(self._waiting):
            if not has_room():
                break
            if self._allow(site, now):
                found.append((site, self._waiting.pop(site)))
        return found

    def _allow(self, site: str, now: float) -> bool:
        allowance = self._allowances.setdefault(site, Allowance(BURST, SECONDS_PER_ANSWER, now))
        return allowance.take(now)
