"""What the rounds are told, as it goes into the chronicle: only what changes how a site stands."""

from fedmedclip.aggregator.chronicle import Chronicle, Kind
from fedmedclip.aggregator.round_events import (
    REFUSED_UPDATE,
    Event,
    HeadAdvanced,
    SiteExcused,
    SiteHeard,
    SiteJoined,
    SiteLeft,
    SiteQuarantined,
    SiteReleased,
    SiteRemoved,
    Tick,
    UpdateStored,
)
from fedmedclip.aggregator.round_logic import Rounds
from fedmedclip.protocol.progress import duration


class Witness:
    """Notes what happens to `rounds`."""

    def __init__(self, chronicle: Chronicle, rounds: Rounds) -> None:
        self._chronicle = chronicle
        self._rounds = rounds
        self._members = set(rounds.members)
        self._present = {site for site in rounds.members if rounds.present(site)}
        # Of each site what was said last, in which round: said again, it is no news.
        self._said: dict[str, tuple[int, Kind, str]] = {}
        chronicle.round_number = rounds.version + 1

    def saw(self, event: Event) -> None:
        """Note an event that the rounds have taken."""
        match event:
            case SiteJoined(site) if site not in self._members:
                self._members.add(site)
                self._present.add(site)
                self._chronicle.note("joined", site)
            case SiteJoined(site) | SiteHeard(site) if site not in self._present:
                self._present.add(site)
                self._chronicle.note("online", site)
            case SiteLeft(site) if site in self._present:
                self._present.discard(site)
                self._chronicle.note("offline", site, "it said so, or its connection was lost")
            case SiteRemoved(site):
                self._members.discard(site)
                self._present.discard(site)
                self._said.pop(site, None)
                self._chronicle.note("removed", site, "no member any more")
            case UpdateStored(site, late):
                self._once("delivered", site, "of an earlier round" if late else "")
            case SiteExcused(site, reason) if not reason.startswith(REFUSED_UPDATE):
                self._once("excused", site, reason)
            case SiteQuarantined(site, reason):
                self._once("quarantined", site, reason)
            case SiteReleased(site):
                self._once("released", site, "")
            case HeadAdvanced(version):
                self._chronicle.round_number = version + 1
            case Tick():
                self._look_for_the_silent()
            case _:
                pass

    def _look_for_the_silent(self) -> None:
        gone = {site for site in self._present if not self._rounds.present(site)}
        self._present -= gone
        waited = duration(self._rounds.settings.lease_seconds)
        for site in sorted(gone):
            self._chronicle.note("offline", site, f"nothing was heard of it for {waited}")

    def _once(self, kind: Kind, site: str, words: str) -> None:
        saying = (self._chronicle.round_number, kind, words)
        if self._said.get(site) != saying:
            self._said[site] = saying
            self._chronicle.note(kind, site, words)
