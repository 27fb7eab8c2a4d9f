"""Who takes part: the key of each member, who may become one, and who is one no more.

Whether a member is active, `Members.reason_inactive`, is asked at each of its messages.
"""

import logging
from dataclasses import dataclass
from typing import Literal

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.register import Register
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import moments
from fedmedclip.protocol.messages import Join, Moment
from fedmedclip.protocol.plan_words import AWAITS_CONSENT, REFUSED

log = logging.getLogger("fedmedclip.aggregator")


# Whoever reaches the broker can say so under any name: those that are remembered have an end.
_MOST_UNABLE = 1000


@dataclass(frozen=True)
class Unable:
    """Which version a site that cannot take part in a run says it runs, and why it cannot."""

    software: str
    reason: str

    @property
    def part(self) -> Literal["awaits consent", "refused", "unable"]:
        """What keeps it away: its operator, who has not decided or has refused, or something else."""
        if self.reason == AWAITS_CONSENT:
            return "awaits consent"
        return "refused" if self.reason.startswith(REFUSED) else "unable"

    @property
    def is_for_the_operator(self) -> bool:
        """Whether its operator may still approve the plan."""
        return self.part != "unable"


class Members:
    """The members of the federation. A name belongs to the key that joined with it first, or to the key that
    the coordinator's roster or list has for it.
    """

    def __init__(
        self, store: Store, configuration: AggregatorConfiguration, register: Register | None = None
    ) -> None:
        """Take up the members of `store`; with `register` it is the roster that says who is one."""
        self._store = store
        self._register = register
        self.configuration = configuration
        self.keys = store.sites()
        """The key of each site that was admitted, active or not."""
        self.unable: dict[str, Unable] = {}
        """Those that said that they cannot take part in this run, members or not."""
        self._moments = store.moments()

    def reason_inactive(self, site: str) -> str:
        """Return why a site that was admitted is no member any more; empty where it is one.

        Asked at each of its messages, and when the configuration or the roster changes.
        """
        if self._register is not None:
            if reason := self._register.why_not(site):
                return reason
            other = self._register.key(site) != self.keys[site]
            return f"{site!r} has another key in the federation's roster" if other else ""
        if self.configuration.federation.enrolment != "listed":
            return ""
        listed = self._listed(site)
        if not listed:
            return f"{site!r} was taken off the aggregator's list"
        return "" if listed == self.keys[site] else f"{site!r} has another key on the aggregator's list"

    @property
    def active(self) -> list[str]:
        """The members, sorted: those who were admitted and are active."""
        return sorted(site for site in self.keys if not self.reason_inactive(site))

    def _listed(self, site: str) -> bytes:
        if self._register is not None:
            return self._register.key(site) or b""
        return bytes.fromhex(self.configuration.sites.get(site, ""))

    @property
    def _has_list(self) -> bool:
        return self._register is not None or self.configuration.federation.enrolment == "listed"

    def takes_part(self, site: str) -> bool:
        """Whether a member has not said that it cannot take part in this run."""
        return site not in self.unable

    def latest(self, site: str, public_key: bytes) -> Moment | None:
        """Return when the site with this key said last what it said, if it was ever heard."""
        return self._moments.get(site) if self.keys.get(site) == public_key else None

    def note(self, site: str, moment: Moment) -> bool:
        """Take note of when a member said something; False, and nothing changes, where that is not new."""
        if not moments.is_later(moment, self._moments.get(site)):
            return False
        self._moments[site] = moment
        self._store.note_moment(site, moment)
        return True

    def is_of_another(self, site: str, join: Join) -> bool:
        """Whether the name belongs to another key."""
        if self._has_list and self._listed(site) == join.public_key:
            return False
        return self.keys.get(site, join.public_key) != join.public_key

    def note_unable(self, site: str, join: Join) -> None:
        """Take note that a site cannot take part in this run, and why."""
        known = self.unable.get(site)
        if site in self.keys:
            self._store.note_software(site, join.software)
        elif known is None and len(self.unable) >= _MOST_UNABLE:
            return
        self.unable[site] = Unable(join.software, join.cannot)
        if known != self.unable[site]:
            log.warning("%s (software %s) cannot take part: %s", site, join.software or "?", join.cannot)

    def reason_to_refuse(self, site: str, join: Join, bundle_digest: bytes) -> str:
        """Return why a site may not join, with what to do; empty when it may."""
        federation = self.configuration.federation
        if join.bundle_digest != bundle_digest:
            return (
                f"the site's bundle has digest {join.bundle_digest.hex()[:16]}, the federation uses "
                f"{bundle_digest.hex()[:16]}; copy the federation's bundle"
            )
        if self._register is not None and (reason := self._register.why_not(site)):
            return reason
        if self.is_of_another(site, join):
            return f"the name {site!r} belongs to another site (another key); choose another name"
        if self._has_list and self._listed(site) != join.public_key:
            return f"{site!r} with key {join.public_key.hex()} is not on the aggregator's list"
        if site not in self.keys and len(self.keys) >= federation.maximum_sites:
            return f"this federation has {len(self.keys)} sites already, as many as maximum_sites allows"
        return ""

    def admit(self, site: str, join: Join) -> None:
        """Record a site and pin its key."""
        if self.keys.get(site) != join.public_key:
            log.info("%s joined with %d training images", site, join.samples)
            self._moments.pop(site, None)
            self._store.forget_site(site)
        self.unable.pop(site, None)
        self._store.admit(site, join.public_key, join.samples, join.software)
        self.keys[site] = join.public_key
        self.note(site, join.moment)
