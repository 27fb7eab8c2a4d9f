"""An aggregator that lost state gets it back: a member that is ahead hands over what the aggregator signed.

    member says that it holds a newer version, or a later revision of the plan
        -> StateRequest -> State (in blocks) -> proven -> adopted

One member at a time is asked; one that does not answer in time, or proves nothing, makes way for the next.
"""

import logging
from dataclasses import dataclass, field

from fedmedclip.protocol.codecs import maximum_encoded_bytes
from fedmedclip.protocol.heads.evidence import Evidence, decode_evidence
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.messages import Block, BlockRequest, State, StateRequest
from fedmedclip.protocol.objects import Assembly

log = logging.getLogger("fedmedclip.aggregator")

ASK_AGAIN_SECONDS = 20.0
NEXT_MEMBER_SECONDS = 120.0
# A plan, and an announcement or snapshot with its payload inside, beside the head.
CARRIERS_BYTES = 1 << 25


@dataclass
class _Asked:
    site: str
    what: str
    since: float
    heard: float
    assembly: Assembly | None = None


@dataclass
class Recovery:
    """What is known of members that are ahead of this aggregator."""

    specification: HeadSpecification
    ahead: dict[str, int] = field(default_factory=dict)
    """The newest version of each that holds one above the aggregator's."""
    later: dict[str, int] = field(default_factory=dict)
    """The revision of the plan of each that knows one above the aggregator's."""
    _asked: _Asked | None = None

    def tell(self, site: str, version: int, own_version: int) -> None:
        """Note which version a member says that it holds."""
        if version > own_version:
            if site not in self.ahead:
                log.warning(
                    "%s holds version %d, newer than version %d here: this aggregator lost state (a restored "
                    "backup?); asking for it", site, version, own_version,
                )  # fmt: skip
            self.ahead[site] = version
        else:
            self.ahead.pop(site, None)

    def tell_revision(self, site: str, revision: int, own_revision: int) -> None:
        """Note which revision of the plan a member says that it knows."""
        if revision > own_revision:
            if site not in self.later:
                log.warning(
                    "%s knows revision %d of the plan, later than revision %d here: this aggregator lost "
                    "state (a restored backup?); asking for it", site, revision, own_revision,
                )  # fmt: skip
            self.later[site] = revision
        else:
            self.later.pop(site, None)

    def request(self, own_version: int, now: float) -> tuple[str, StateRequest | BlockRequest] | None:
        """Return what to ask of whom now, if anything."""
        asked = self._asked
        if asked is not None and now - asked.since >= NEXT_MEMBER_SECONDS:
            log.warning("%s has not shown its %s; asking another member", asked.site, asked.what)
            self._forget_what_is_said_of(asked.site)
            asked = self._asked = None
        if asked is None:
            if (chosen := self._choose()) is None:
                return None
            self._asked = _Asked(*chosen, now, now)
            return self._asked.site, StateRequest(own_version)
        if now - asked.heard < ASK_AGAIN_SECONDS:
            return None
        asked.heard = now
        missing = None if asked.assembly is None else asked.assembly.request()
        return asked.site, missing or StateRequest(own_version)

    def take(self, site: str, message: State | Block, now: float) -> Evidence | None:
        """Take a part of what the asked member sends; return the evidence when it is complete.

        Raises MessageError for what cannot be evidence.
        """
        asked = self._asked
        if asked is None or asked.site != site:
            return None
        asked.heard = now
        if isinstance(message, State):
            limit = maximum_encoded_bytes(self.specification) + CARRIERS_BYTES
            asked.assembly = asked.assembly or Assembly(message.payload, limit)
        elif asked.assembly is None or asked.assembly.digest != message.object_digest:
            return None
        else:
            asked.assembly.add(message.index, message.data)
        if not asked.assembly.complete:
            return None
        data, self._asked = asked.assembly.data(), None
        self._forget_what_is_said_of(site)
        return decode_evidence(data)

    def expects(self, site: str, block: Block) -> bool:
        """Whether a block belongs to what the asked member sends."""
        asked = self._asked
        if asked is None or asked.site != site or asked.assembly is None:
            return False
        return asked.assembly.digest == block.object_digest

    def forget(self, site: str) -> None:
        """Forget a site that is no member any more."""
        self._forget_what_is_said_of(site)
        if self._asked is not None and self._asked.site == site:
            self._asked = None

    def over(self, own_version: int, own_revision: int) -> None:
        """Forget whoever is no longer ahead."""
        self.ahead = {site: version for site, version in self.ahead.items() if version > own_version}
        self.later = {site: revision for site, revision in self.later.items() if revision > own_revision}
        if self._asked is not None and self._asked.site not in self.ahead.keys() | self.later.keys():
            self._asked = None

    def _choose(self) -> tuple[str, str] | None:
        """Return whom to ask, and what they are said to have: first of all the newest version."""
        for said, what in ((self.ahead, "version"), (self.later, "revision of the plan:")):
            if said:
                newest, site = max((number, name) for name, number in said.items())
                return site, f"{what} {newest}"
        return None

    def _forget_what_is_said_of(self, site: str) -> None:
        self.ahead.pop(site, None)
        self.later.pop(site, None)
