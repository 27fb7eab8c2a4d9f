"""Who takes part: the key of each member, and who may become one."""

import logging
from dataclasses import dataclass

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.messages import Join

log = logging.getLogger("fedmedclip.aggregator")


# Whoever reaches the broker can say so under any name: those that are remembered have an end.
_MOST_UNABLE = 10_000


@dataclass(frozen=True)
class Unable:
    """Which version a site that cannot take part in a run says it runs, and why it cannot."""

    software: str
    reason: str


class Members:
    """The members of the federation. A name belongs to the key that joined with it first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.keys = store.sites()
        self.unable: dict[str, Unable] = {}
        """Those that said that they cannot take part in this run, members or not."""

    def takes_part(self, site: str) -> bool:
        """Whether a member has not said that it cannot take part in this run."""
        return site not in self.unable

    def is_of_another(self, site: str, join: Join) -> bool:
        """Whether the name belongs to another key."""
        return self.keys.get(site, join.public_key) != join.public_key

    def note_unable(self, site: str, join: Join) -> None:
        """Take note that a site cannot take part in this run, and why."""
        log.warning("%s (software %s) cannot take part: %s", site, join.software or "?", join.cannot)
        if site in self.keys:
            self._store.note_software(site, join.software)
        elif site not in self.unable and len(self.unable) >= _MOST_UNABLE:
            return
        self.unable[site] = Unable(join.software, join.cannot)

    def reason_to_refuse(
        self, site: str, join: Join, bundle_digest: bytes, configuration: AggregatorConfiguration
    ) -> str:
        """Return why a site may not join, with what to do; empty when it may."""
        if join.bundle_digest != bundle_digest:
            return (
                f"the site's bundle has digest {join.bundle_digest.hex()[:16]}, the federation uses "
                f"{bundle_digest.hex()[:16]}; copy the federation's bundle"
            )
        if self.is_of_another(site, join):
            return f"the name {site!r} belongs to another site (another key); choose another name"
        listed = configuration.sites.get(site, "").lower() == join.public_key.hex()
        if configuration.federation.enrolment == "listed" and not listed:
            return f"{site!r} with key {join.public_key.hex()} is not on the aggregator's list"
        return ""

    def admit(self, site: str, join: Join) -> None:
        """Record a site and pin its key."""
        if site not in self.keys:
            log.info("%s joined with %d training images", site, join.samples)
        self.unable.pop(site, None)
        self._store.admit(site, join.public_key, join.samples, join.software)
        self.keys[site] = join.public_key
