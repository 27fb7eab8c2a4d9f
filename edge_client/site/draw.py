"""Which sites a round is drawn for, as the aggregator has announced it."""

from fedmedclip.protocol.messages import Announcement, Plan, Snapshot
from fedmedclip.protocol.participation import LOTS, lot_of


class Draw:
    """The draw of the newest version that was announced; nobody trains before the first."""

    def __init__(self) -> None:
        self._version, self._below = -1, 0

    def note(self, carrier: Announcement | Snapshot) -> None:
        """Take note of who trains from a version; more may be drawn later, none is called off."""
        announced = LOTS if carrier.drawn_below is None else carrier.drawn_below
        if carrier.version > self._version:
            self._version, self._below = carrier.version, announced
        elif carrier.version == self._version:
            self._below = max(self._below, announced)

    def forget_after(self, version: int) -> None:
        """Forget the draw of a version that is gone: `version` is the newest, whose carrier is noted next."""
        if self._version > version:
            self._version, self._below = -1, 0

    def includes(self, site: str, plan: Plan, round_number: int) -> bool:
        """Whether a site takes part in a round; not before its beginning was announced."""
        if self._version != round_number - 1 or self._below == 0:
            return False
        return self._below == LOTS or lot_of(plan.seed, site, round_number) < self._below
