"""The roster as the aggregator asks it: who is a member, with which key, and how much a site may weigh."""

import hashlib

from fedmedclip.protocol.envelope import OVERHEAD_BYTES
from fedmedclip.protocol.messages import Block, ObjectReference, RosterNotice
from fedmedclip.protocol.objects import blocks_of
from fedmedclip.protocol.roster.chain import Roster

MOST_INLINE_BYTES = 4096


class Register:
    """Holds the newest roster; `roster` is replaced by one that continues it."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster

    def key(self, site: str) -> bytes | None:
        """Return the key of a member, None of who is none."""
        member = self.roster.members.active(site)
        return None if member is None else member.public_key

    def most_samples(self, site: str) -> int:
        """Return for how many images a member's updates may count; 0 for who is none."""
        member = self.roster.members.active(site)
        return 0 if member is None else member.most_samples

    def why_not(self, site: str) -> str:
        """Return why a site is no member, for people; empty where it is one."""
        member = self.roster.members.by_site.get(site)
        if member is None:
            return f"{site!r} is not in the federation's roster; the coordinator invites sites"
        if not member.active:
            return f"{site!r} was revoked by the coordinator" + (member.reason and f": {member.reason}")
        return ""

    def notice(self, maximum_message_bytes: int) -> RosterNotice:
        """Return what is retained at the broker."""
        return RosterNotice(len(self.roster.records), self._payload(maximum_message_bytes))

    def blocks(
        self, object_digest: bytes, indices: list[int], maximum_message_bytes: int
    ) -> list[Block] | None:
        """Return the asked blocks of the roster, None when another object is meant."""
        payload = self._payload(maximum_message_bytes)
        if isinstance(payload, bytes) or payload.digest != object_digest:
            return None
        return list(blocks_of(self.roster.encoded, payload, indices))

    def _payload(self, maximum_message_bytes: int) -> bytes | ObjectReference:
        encoded = self.roster.encoded
        if len(encoded) <= MOST_INLINE_BYTES:
            return encoded
        block_size = maximum_message_bytes - OVERHEAD_BYTES
        return ObjectReference(hashlib.sha256(encoded).digest(), len(encoded), block_size)
