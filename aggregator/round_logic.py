"""When a round closes, and who is waited for: a state machine without clock, broker or disk.

`Rounds.handle` takes one event and a reading of a monotonic clock in seconds, changes the state, and returns
what is to be done. Round n collects the updates that make version n from version n - 1.

A member is *present* while its lease runs: whatever it sends renews the lease, a status that says so ends
it. A round waits for every member that is present, has not delivered and is not *excused*: refused, or left
out by the coordinator. So no message that is lost, and no member that is refused or silent, holds a round up
for ever.

Two policies change for whom it waits. With `sites_per_round` only so many members are *drawn*, those with the
smallest lots of the present ones; for one that leaves, is excused or lets the time limit pass, the next is
drawn. With `buffer_size` a round closes as soon as it has so many updates, late ones of earlier rounds
included: Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation" (FedBuff).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from fedmedclip.aggregator.round_events import (
    Action,
    CloseRound,
    Event,
    HeadAdvanced,
    ReportOverdue,
    RoundSettings,
    SiteDeclined,
    SiteExcused,
    SiteHeard,
    SiteJoined,
    SiteLeft,
    SiteQuarantined,
    SiteReleased,
    SiteRemoved,
    Tick,
    UpdateLost,
    UpdateStored,
)
from fedmedclip.protocol.participation import LOTS


@dataclass
class Member:
    """`heard_at` is None once it has left, which was at `left_at`; `excused` says why the open round does
    not wait for it.

    `late`: an update of an earlier round counts in the open one. `lot` is for the open round.
    """

    heard_at: float | None = None
    left_at: float | None = None
    delivered: bool = False
    late: bool = False
    excused: str = ""
    lot: int = 0


class Rounds:
    """The open round and its members. Each event costs the same however many members there are; a tick, one
    look at each.
    """

    def __init__(
        self,
        settings: RoundSettings,
        version: int,
        members: Iterable[str] = (),
        now: float = 0.0,
        lot: Callable[[str, int], int] = lambda site, round_number: 0,
        drawn_below: int | None = None,
        quarantined: Mapping[str, str] | None = None,
    ) -> None:
        """Open the round after `version`. Each of `members` counts as present for one lease.

        `lot` gives a site's lot for a round; whose is below `drawn_below` was drawn for this one before.
        `quarantined` says why sites do not count.
        """
        self.settings = settings
        self.version = version
        self._lot = lot
        self._quarantined = dict(quarantined or {})
        self._members: dict[str, Member] = {}
        # Members that delivered, those that did so late, those of either, and those excused that did not.
        self._delivered = 0
        self._late = 0
        self._counted = 0
        self._excused = 0
        self._first_delivery: float | None = None
        self._overdue_reported = False
        # Present members that are neither excused nor have delivered: those that the round waits for, and
        # those that are not drawn.
        self._awaited: set[str] = set()
        self._undrawn: set[str] = set()
        # Members that take no part in the run, as they said.
        self._declined: set[str] = set()
        # Excused members whose operators have not approved the open round.
        self._undecided: set[str] = set()
        self._drawn_below = self._first_bound() if drawn_below is None else drawn_below
        self._drawn_at = now
        for site in members:
            self._enrol(site)
            self._renew(site, now)
        self._draw(now)

    @property
    def members(self) -> frozenset[str]:
        """The names of all members."""
        return frozenset(self._members)

    @property
    def delivered(self) -> tuple[str, ...]:
        """The sites of which an update that counts in the open round is stored, sorted."""
        return tuple(
            sorted(site for site, member in self._members.items() if member.delivered or member.late)
        )

    @property
    def awaited(self) -> tuple[str, ...]:
        """The sites that the open round waits for, sorted."""
        return tuple(sorted(self._awaited))

    @property
    def drawn_below(self) -> int | None:
        """Members with a lot below this take part in the open round; None: all."""
        return None if self._drawn_below == LOTS else self._drawn_below

    @property
    def first_delivery(self) -> float | None:
        """When the open round got its first update, as a reading of the clock."""
        return self._first_delivery

    def member(self, site: str) -> Member:
        """Return what is known of a member; KeyError for anybody else."""
        return replace(self._members[site])

    def drawn(self, site: str) -> bool:
        """Whether a member takes part in the open round."""
        return self._members[site].lot < self._drawn_below

    def present(self, site: str) -> bool:
        """Whether the site's lease runs."""
        member = self._members.get(site)
        return member is not None and member.heard_at is not None

    def excused(self) -> dict[str, str]:
        """Return the reasons why sites are not waited for in the open round."""
        return {site: member.excused for site, member in sorted(self._members.items()) if member.excused}

    def needed(self) -> int:
        """Return how many updates close the round: `minimum_sites`, or all that members which are excused
        leave of those who take part in the run, but never none. That an operator has not approved a round
        does not lower it.
        """
        undecided = sum(not self._members[site].delivered for site in self._undecided)
        if self._excused == undecided:
            return self.settings.minimum_sites
        declined = sum(
            not (self._members[site].delivered or self._members[site].excused) for site in self._declined
        )
        return max(1, min(self.settings.minimum_sites, len(self._members) - self._excused - declined))

    def handle(self, event: Event, now: float) -> Action | None:
        """Take an event and return the action that is due, if any."""
        match event:
            case SiteJoined(site):
                self._declined.discard(site)
                self._enrol(site)
                self._renew(site, now)
            case SiteHeard(site):
                self._renew(site, now)
            case SiteLeft(site):
                self._end_lease(site, now)
            case SiteDeclined(site):
                self._declined.add(site)
                self._end_lease(site, now)
            case SiteRemoved(site):
                self._declined.discard(site)
                self._remove(site)
            case UpdateStored(site, late):
                self._deliver(site, now, late)
            case UpdateLost(site, late):
                self._lose(site, late)
            case SiteExcused(site, reason, undecided):
                self._excuse(site, reason)
                if undecided:
                    self._undecided.add(site)
                else:
                    self._undecided.discard(site)
            case SiteQuarantined(site, reason):
                self._quarantined[site] = reason
                self._excuse(site, reason)
            case SiteReleased(site):
                del self._quarantined[site]
                self._excuse(site, "released from quarantine; waited for from the next round")
            case HeadAdvanced(version):
                self._open(version, now)
            case Tick():
                for site in [site for site in self._members if self._expired(site, now)]:
                    self._end_lease(site, now)
                self._give_up_silent(now)
        self._draw(now)
        return self._due(now)

    def _enrol(self, site: str) -> None:
        if site not in self._members:
            self._members[site] = Member(lot=self._lot_of(site))
            if site in self._quarantined:
                self._excuse(site, self._quarantined[site])

    def _renew(self, site: str, now: float) -> None:
        member = self._members[site]
        member.heard_at = now
        if not member.delivered and not member.excused:
            (self._awaited if self.drawn(site) else self._undrawn).add(site)

    def _expired(self, site: str, now: float) -> bool:
        heard = self._members[site].heard_at
        return heard is not None and now - heard >= self.settings.lease_seconds

    def _end_lease(self, site: str, now: float) -> None:
        member = self._members[site]
        if member.heard_at is not None:
            member.heard_at, member.left_at = None, now
        self._wait_no_longer(site)

    def _remove(self, site: str) -> None:
        if (member := self._members.pop(site, None)) is None:
            return
        self._wait_no_longer(site)
        self._delivered -= member.delivered
        self._late -= member.late
        self._undecided.discard(site)
        self._counted -= member.delivered or member.late
        self._excused -= bool(member.excused) and not member.delivered
        if not self._counted:
            self._first_delivery = None

    def _excuse(self, site: str, reason: str) -> None:
        member = self._members[site]
        if not member.excused and not member.delivered:
            self._excused += 1
        member.excused = reason
        self._wait_no_longer(site)

    def _wait_no_longer(self, site: str) -> None:
        self._awaited.discard(site)
        self._undrawn.discard(site)

    def _deliver(self, site: str, now: float, late: bool) -> None:
        member = self._members[site]
        self._counted += not (member.delivered or member.late)
        if late and not member.late:
            member.late = True
            self._late += 1
        if not late and not member.delivered:
            member.delivered = True
            self._delivered += 1
            self._excused -= bool(member.excused)
            self._wait_no_longer(site)
        if self._first_delivery is None:
            self._first_delivery = now

    def _lose(self, site: str, late: bool) -> None:
        member = self._members[site]
        if late:
            self._late -= member.late
            member.late = False
        elif member.delivered:
            member.delivered = False
            self._delivered -= 1
            self._excused += bool(member.excused)
            if member.heard_at is not None and not member.excused:
                (self._awaited if self.drawn(site) else self._undrawn).add(site)
        self._counted = sum(other.delivered or other.late for other in self._members.values())

    def _open(self, version: int, now: float) -> None:
        self.version = version
        self._delivered, self._late, self._counted, self._excused = 0, 0, 0, 0
        self._first_delivery, self._overdue_reported = None, False
        self._drawn_below, self._drawn_at = self._first_bound(), now
        for sites in (self._awaited, self._undrawn, self._undecided):
            sites.clear()
        for site, member in self._members.items():
            member.delivered, member.late, member.lot = False, False, self._lot_of(site)
            member.excused = self._quarantined.get(site, "")
            self._excused += bool(member.excused)
            if member.heard_at is not None and not member.excused:
                (self._awaited if self.drawn(site) else self._undrawn).add(site)

    def _first_bound(self) -> int:
        return LOTS if self.settings.sites_per_round is None else 0

    def _lot_of(self, site: str) -> int:
        # A lot costs a digest: nobody draws one where all take part.
        return 0 if self.settings.sites_per_round is None else self._lot(site, self.version + 1)

    def _draw(self, now: float) -> None:
        """Draw as many of the members that may take part as are lacking."""
        wanted = self.settings.sites_per_round
        if not self._undrawn:
            return
        if wanted is None:
            self._drawn_below = LOTS
        elif (lacking := wanted - self._delivered - len(self._awaited)) > 0:
            by_lot = sorted(self._undrawn, key=lambda site: (self._members[site].lot, site))
            self._drawn_below = self._members[by_lot[:lacking][-1]].lot + 1
        else:
            return
        self._drawn_at = now
        drawn = {site for site in self._undrawn if self.drawn(site)}
        self._undrawn -= drawn
        self._awaited |= drawn

    def _give_up_silent(self, now: float) -> None:
        """Excuse who was drawn and let the time limit pass, so that others are drawn."""
        settings = self.settings
        if settings.paused:
            self._drawn_at = now
        if not self._undrawn or self._counted >= self.needed():
            return
        if now - self._drawn_at < settings.timeout_seconds:
            return
        for site in sorted(self._awaited):
            self._excuse(site, f"drawn, but delivered nothing for {settings.timeout_seconds:.0f} s")

    def _due(self, now: float) -> Action | None:
        settings = self.settings
        if self.version >= settings.rounds or settings.paused or self._first_delivery is None:
            return None
        overdue = now - self._first_delivery >= settings.timeout_seconds
        # With a longer limit than before it may not be over after all.
        self._overdue_reported &= overdue
        full = settings.buffer_size is not None and self._delivered + self._late >= settings.buffer_size
        if self._awaited and not overdue and not full:
            return None
        needed = self.needed()
        if self._counted >= needed:
            return CloseRound(self.version + 1, self.delivered)
        if overdue and not self._overdue_reported:
            self._overdue_reported = True
            return ReportOverdue(self.version + 1, self._counted, needed)
        return None
