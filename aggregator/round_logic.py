"""When a round closes, and who is waited for: a state machine without clock, broker or disk.

`Rounds.handle` takes one event and a reading of a monotonic clock in seconds, changes the state, and returns
what is to be done. Round n collects the updates that make version n from version n - 1.

A member is *present* while its lease runs: whatever it sends renews the lease, a status that says so ends
it. A round waits for every member that is present, has not delivered and is not *excused*: refused, or left
out by the coordinator. So no message that is lost, and no member that is refused or silent, holds a round up
for ever.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class RoundSettings:
    """`minimum_sites` updates are needed; others are waited for until `timeout_seconds` after the first.

    `rounds` is the last round; while `paused`, none closes. `lease_seconds` is how long a member that says
    nothing counts as present.
    """

    rounds: int
    minimum_sites: int
    timeout_seconds: float
    lease_seconds: float = 180.0
    paused: bool = False


@dataclass(frozen=True)
class SiteJoined:
    """A site was admitted."""

    site: str


@dataclass(frozen=True)
class SiteHeard:
    """A member sent something: it is there."""

    site: str


@dataclass(frozen=True)
class SiteLeft:
    """A member said that it goes, or its last will did."""

    site: str


@dataclass(frozen=True)
class UpdateStored:
    """A valid update of a member for the open round lies on disk."""

    site: str


@dataclass(frozen=True)
class SiteExcused:
    """A member is not waited for in this round, for this reason; an update that it delivers still counts."""

    site: str
    reason: str


@dataclass(frozen=True)
class HeadAdvanced:
    """A new version lies on disk, whether a round made it or not."""

    version: int


@dataclass(frozen=True)
class Tick:
    """Nothing happened but time."""


Event = SiteJoined | SiteHeard | SiteLeft | UpdateStored | SiteExcused | HeadAdvanced | Tick


@dataclass(frozen=True)
class CloseRound:
    """Aggregate the stored updates of these sites, in this order."""

    round_number: int
    sites: tuple[str, ...]


@dataclass(frozen=True)
class ReportOverdue:
    """The time is over but too few sites have delivered; the round stays open."""

    round_number: int
    delivered: int
    needed: int


Action = CloseRound | ReportOverdue


@dataclass
class Member:
    """`lease_ends` is None once it has left; `excused` says why the open round does not wait for it."""

    lease_ends: float | None = None
    delivered: bool = False
    excused: str = ""


class Rounds:
    """The open round and its members. Each event costs the same however many members there are; a tick, one
    look at each.
    """

    def __init__(
        self, settings: RoundSettings, version: int, members: Iterable[str] = (), now: float = 0.0
    ) -> None:
        """Open the round after `version`. Each of `members` counts as present for one lease."""
        self.settings = settings
        self.version = version
        self._members: dict[str, Member] = {}
        # Members that delivered, and those that are excused and did not.
        self._delivered = 0
        self._excused = 0
        self._first_delivery: float | None = None
        self._overdue_reported = False
        # Present members that are neither excused nor have delivered: those that the round waits for.
        self._awaited: set[str] = set()
        for site in members:
            self._members[site] = Member()
            self._renew(site, now)

    @property
    def members(self) -> frozenset[str]:
        """The names of all members."""
        return frozenset(self._members)

    @property
    def delivered(self) -> tuple[str, ...]:
        """The sites whose update for the open round is stored, sorted."""
        return tuple(sorted(site for site, member in self._members.items() if member.delivered))

    @property
    def awaited(self) -> tuple[str, ...]:
        """The sites that the open round waits for, sorted."""
        return tuple(sorted(self._awaited))

    def present(self, site: str) -> bool:
        """Whether the site's lease runs."""
        member = self._members.get(site)
        return member is not None and member.lease_ends is not None

    def excused(self) -> dict[str, str]:
        """Return the reasons why sites are not waited for in the open round."""
        return {site: member.excused for site, member in sorted(self._members.items()) if member.excused}

    def needed(self) -> int:
        """Return how many updates close the round: `minimum_sites`, or all that members which are excused
        leave, but never none.
        """
        if self._excused == 0:
            return self.settings.minimum_sites
        return max(1, min(self.settings.minimum_sites, len(self._members) - self._excused))

    def handle(self, event: Event, now: float) -> Action | None:
        """Take an event and return the action that is due, if any."""
        match event:
            case SiteJoined(site):
                self._members.setdefault(site, Member())
                self._renew(site, now)
            case SiteHeard(site):
                self._renew(site, now)
            case SiteLeft(site):
                self._end_lease(site)
            case UpdateStored(site):
                self._deliver(site, now)
            case SiteExcused(site, reason):
                self._excuse(site, reason)
            case HeadAdvanced(version):
                self._open(version)
            case Tick():
                for site in [site for site in self._members if self._expired(site, now)]:
                    self._end_lease(site)
        return self._due(now)

    def _renew(self, site: str, now: float) -> None:
        member = self._members[site]
        member.lease_ends = now + self.settings.lease_seconds
        if not member.delivered and not member.excused:
            self._awaited.add(site)

    def _expired(self, site: str, now: float) -> bool:
        ends = self._members[site].lease_ends
        return ends is not None and now >= ends

    def _end_lease(self, site: str) -> None:
        self._members[site].lease_ends = None
        self._awaited.discard(site)

    def _excuse(self, site: str, reason: str) -> None:
        member = self._members[site]
        if not member.excused and not member.delivered:
            self._excused += 1
        member.excused = reason
        self._awaited.discard(site)

    def _deliver(self, site: str, now: float) -> None:
        member = self._members[site]
        if not member.delivered:
            member.delivered = True
            self._delivered += 1
            self._excused -= bool(member.excused)
        self._awaited.discard(site)
        if self._first_delivery is None:
            self._first_delivery = now

    def _open(self, version: int) -> None:
        self.version = version
        self._delivered, self._excused = 0, 0
        self._first_delivery, self._overdue_reported = None, False
        self._awaited.clear()
        for site, member in self._members.items():
            member.delivered, member.excused = False, ""
            if member.lease_ends is not None:
                self._awaited.add(site)

    def _due(self, now: float) -> Action | None:
        settings = self.settings
        if self.version >= settings.rounds or settings.paused or self._first_delivery is None:
            return None
        overdue = now - self._first_delivery >= settings.timeout_seconds
        if self._awaited and not overdue:
            return None
        needed = self.needed()
        if self._delivered >= needed:
            return CloseRound(self.version + 1, self.delivered)
        if overdue and not self._overdue_reported:
            self._overdue_reported = True
            return ReportOverdue(self.version + 1, self._delivered, needed)
        return None
