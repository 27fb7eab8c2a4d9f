"""Following the roster: who is a member, and which key the coordinator has today."""

import logging
from pathlib import Path

from fedmedclip.edge_client.site.configuration import SiteSettings
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.protocol.configuration import beside
from fedmedclip.protocol.envelope import NO_IDENTITY, Envelope
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Block, BlockRequest, RosterNotice
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.objects import Assembly
from fedmedclip.protocol.roster.chain import MAXIMUM_BYTES, Roster, open_roster

log = logging.getLogger("fedmedclip.site")


class RosterFollower:
    """Holds the newest roster that this site has verified, and keeps it in a file.

    The first that it takes has to come from who holds, or was given by rotation, the `pinned` key (32 raw
    bytes); each later one has to continue it.
    """

    def __init__(self, path: Path, federation: str, site: str, pinned: bytes) -> None:
        self._path = path
        self._federation = federation
        self._site = site
        self._pinned = pinned
        self._incoming: tuple[Envelope, Assembly] | None = None
        self._asked_at: float | None = None
        self.roster = self._stored()

    @property
    def coordinator_key(self) -> bytes:
        """The key with which the coordinator signs today, as far as it is known here."""
        return self._pinned if self.roster is None else self.roster.coordinator_key

    @property
    def admitted(self) -> bool:
        """Whether this site is a member by the roster that is known here."""
        return self.roster is not None and self.roster.members.active(self._site) is not None

    def expects(self, block: Block) -> bool:
        """Whether it is a block of what is asked for."""
        return self._incoming is not None and self._incoming[1].digest == block.object_digest

    def take(self, envelope: Envelope, notice: RosterNotice) -> None:
        """Take a notice of the roster; what it does not carry is asked for at the next tick.

        Raises MessageError for one that is not the coordinator's, or is older than what is known here.
        """
        known = 0 if self.roster is None else len(self.roster.records)
        if notice.records < known:
            raise MessageError(f"an old copy of the roster: {notice.records} records, {known} are known here")
        if isinstance(notice.payload, bytes):
            self._adopt(envelope, notice.payload)
        elif notice.records > known and (self._incoming is None or self._incoming[0].message != notice):
            self._incoming = (envelope, Assembly(notice.payload, MAXIMUM_BYTES))
            self._asked_at = None

    def add_block(self, block: Block) -> bool:
        """Take a block of the roster; return False for one of anything else. Raises MessageError."""
        if self._incoming is None or not self.expects(block):
            return False
        envelope, assembly = self._incoming
        assembly.add(block.index, block.data)
        if assembly.complete:
            self._incoming = None
            self._adopt(envelope, assembly.data())
        return True

    def due(self, now: float) -> list[BlockRequest]:
        """Return what to ask for now."""
        if self._incoming is None:
            return []
        if self._asked_at is not None and now - self._asked_at < ASK_AGAIN_SECONDS:
            return []
        self._asked_at = now
        request = self._incoming[1].request()
        return [] if request is None else [request]

    def _stored(self) -> Roster | None:
        if not self._path.exists():
            return None
        try:
            roster = open_roster(self._path.read_bytes())
            self._require_trusted(roster)
        except MessageError as error:
            log.warning("%s cannot be used (%s); taking the roster anew", self._path, error)
            return None
        return roster

    def _require_trusted(self, roster: Roster) -> None:
        if roster.federation != self._federation:
            raise MessageError(f"a roster of {roster.federation!r}, this site is in {self._federation!r}")
        if self._pinned not in roster.coordinator_keys:
            raise MessageError("a roster that the coordinator whom this site trusts has not signed")

    def _adopt(self, envelope: Envelope, encoded: bytes) -> None:
        roster = open_roster(encoded, self.roster)
        if self.roster is None:
            self._require_trusted(roster)
        envelope.verify(roster.coordinator_key, NO_IDENTITY)
        if self.roster is not None and len(roster.records) == len(self.roster.records):
            return
        write_new_file(self._path, roster.encoded)
        before, self.roster = self.roster, roster
        if before is not None and roster.coordinator_key != before.coordinator_key:
            log.warning("the coordinator has a new key: %s", roster.coordinator_key.hex())
        own = roster.members.by_site.get(self._site)
        if own is not None and not own.active:
            log.error(
                "this site, %s, is a member of %s no more: %s; what it sends is refused",
                self._site, self._federation, own.reason or "no reason was given",
            )  # fmt: skip
        log.info("members of %s: %s", self._federation, ", ".join(_active(roster)) or "none")


def roster_follower(configuration_file: Path, settings: SiteSettings) -> RosterFollower | None:
    """Return what follows a site's roster, None where its configuration names none."""
    if settings.roster is None or settings.aggregator_key is None:
        return None
    path, pinned = beside(configuration_file, settings.roster), bytes.fromhex(settings.aggregator_key)
    return RosterFollower(path, settings.federation, settings.name, pinned)


def _active(roster: Roster) -> list[str]:
    return sorted(member.site for member in roster.members.by_site.values() if member.active)
