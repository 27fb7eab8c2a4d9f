"""When a round closes: a state machine without clock, broker or disk.

`handle` takes the state, one event and a reading of a monotonic clock in seconds, and returns the next state
and what is to be done. Round n collects the updates that make version n from version n - 1.
"""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class RoundSettings:
    """`minimum_sites` updates are needed; others are waited for until `timeout_seconds` after the first."""

    rounds: int
    minimum_sites: int
    timeout_seconds: float


@dataclass(frozen=True)
class RoundState:
    """`version` is the newest head; `delivered` are the sites whose update for the next version is stored."""

    version: int
    members: frozenset[str] = field(default_factory=frozenset)
    online: frozenset[str] = field(default_factory=frozenset)
    delivered: frozenset[str] = field(default_factory=frozenset)
    first_delivery: float | None = None
    overdue_reported: bool = False


@dataclass(frozen=True)
class SiteJoined:
    """A site was admitted."""

    site: str


@dataclass(frozen=True)
class SitePresence:
    """A site came online or went offline."""

    site: str
    online: bool


@dataclass(frozen=True)
class UpdateStored:
    """A valid update for the open round lies on disk."""

    site: str


@dataclass(frozen=True)
class HeadAdvanced:
    """The round was aggregated and the new version lies on disk."""

    version: int


@dataclass(frozen=True)
class Tick:
    """Nothing happened but time."""


Event = SiteJoined | SitePresence | UpdateStored | HeadAdvanced | Tick


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


Action = CloseRound | ReportOverdue


def handle(
    state: RoundState, event: Event, now: float, settings: RoundSettings
) -> tuple[RoundState, Action | None]:
    """Return the state after `event` and the action that is due, if any."""
    state = _after(state, event, now)
    if state.version >= settings.rounds or not state.delivered or state.first_delivery is None:
        return state, None
    overdue = now - state.first_delivery >= settings.timeout_seconds
    everybody = (state.members & state.online) <= state.delivered
    if len(state.delivered) >= settings.minimum_sites and (everybody or overdue):
        return state, CloseRound(state.version + 1, tuple(sorted(state.delivered)))
    if overdue and not state.overdue_reported:
        return replace(state, overdue_reported=True), ReportOverdue(state.version + 1, len(state.delivered))
    return state, None


def _after(state: RoundState, event: Event, now: float) -> RoundState:
    match event:
        case SiteJoined(site):
            return replace(state, members=state.members | {site})
        case SitePresence(site, online):
            return replace(state, online=state.online | {site} if online else state.online - {site})
        case UpdateStored(site):
            first = now if state.first_delivery is None else state.first_delivery
            return replace(state, delivered=state.delivered | {site}, first_delivery=first)
        case HeadAdvanced(version):
            return replace(
                state, version=version, delivered=frozenset(), first_delivery=None, overdue_reported=False
            )
        case Tick():
            return state
