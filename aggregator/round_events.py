"""What the rounds are told and what they answer: see `round_logic`."""

from dataclasses import dataclass

MAXIMUM_STALENESS = 1000
"""How many rounds late an update can be that counts, at most."""
REFUSED_UPDATE = "its update was refused: "
"""With this begins why a site is excused whose update was refused."""


@dataclass(frozen=True)
class RoundSettings:
    """`minimum_sites` updates are needed; others are waited for until `timeout_seconds` after the first.

    `rounds` is the last round; while `paused`, none closes. `lease_seconds` is how long a member that says
    nothing counts as present. `sites_per_round` None: all; `buffer_size` None: all that are waited for.
    """

    rounds: int
    minimum_sites: int
    timeout_seconds: float
    lease_seconds: float = 180.0
    paused: bool = False
    sites_per_round: int | None = None
    buffer_size: int | None = None


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
class SiteDeclined:
    """A member said that it takes no part in this run, until it joins again."""

    site: str


@dataclass(frozen=True)
class SiteRemoved:
    """A site is no member any more, and what it delivered does not count."""

    site: str


@dataclass(frozen=True)
class UpdateStored:
    """A valid update of a member for the open round lies on disk; a `late` one is of an earlier round."""

    site: str
    late: bool = False


@dataclass(frozen=True)
class UpdateLost:
    """A stored update is damaged, and was dropped; `late` as before."""

    site: str
    late: bool = False


@dataclass(frozen=True)
class SiteExcused:
    """A member is not waited for in this round, for this reason; an update that it delivers still counts.

    Where its operator has not approved the round (`undecided`), the round does not need fewer for it.
    """

    site: str
    reason: str
    undecided: bool = False


@dataclass(frozen=True)
class SiteQuarantined:
    """A member does not count, for this reason: no round waits for it until it is released."""

    site: str
    reason: str


@dataclass(frozen=True)
class SiteReleased:
    """A member counts again. The open round does not wait for it: it may try again only later."""

    site: str


@dataclass(frozen=True)
class HeadAdvanced:
    """A new version lies on disk, whether a round made it or not."""

    version: int


@dataclass(frozen=True)
class Tick:
    """Nothing happened but time."""


Event = (
    SiteJoined
    | SiteHeard
    | SiteLeft
    | SiteDeclined
    | SiteRemoved
    | UpdateStored
    | UpdateLost
    | SiteExcused
    | SiteQuarantined
    | SiteReleased
    | HeadAdvanced
    | Tick
)


@dataclass(frozen=True)
class CloseRound:
    """Aggregate what is stored: updates of these sites."""

    round_number: int
    sites: tuple[str, ...]


@dataclass(frozen=True)
class ReportOverdue:
    """The time is over but too few sites have delivered; the round stays open."""

    round_number: int
    delivered: int
    needed: int


Action = CloseRound | ReportOverdue
