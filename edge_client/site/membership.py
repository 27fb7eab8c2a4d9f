"""This site's place in a federation that has a roster: who else is in it, and its own certificate."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedmedclip.edge_client.site.renewal import Renewing
from fedmedclip.edge_client.site.roster_follower import RosterFollower
from fedmedclip.protocol.envelope import Envelope
from fedmedclip.protocol.messages import Block, BlockRequest, Renewal, RenewalRequest, RosterNotice


@dataclass(frozen=True)
class Membership:
    """Follows the roster; `renewing` is None where the broker asks for no certificate of the federation's."""

    follower: RosterFollower
    renewing: Renewing | None

    @property
    def coordinator_keys(self) -> Sequence[bytes]:
        """The keys that the coordinator has had, as far as it is known here; the last is today's."""
        roster = self.follower.roster
        return (self.follower.coordinator_key,) if roster is None else roster.coordinator_keys

    @property
    def admitted(self) -> bool:
        """Whether the roster that is known here has this site as a member."""
        return self.follower.admitted

    def key_of(self, site: str) -> bytes | None:
        """Return the key of a member, None for a site that is none by the roster that is known here."""
        roster = self.follower.roster
        member = None if roster is None else roster.members.active(site)
        return None if member is None else member.public_key

    def take(self, envelope: Envelope, notice: RosterNotice) -> None:
        """Take a notice of the roster. Raises MessageError."""
        self.follower.take(envelope, notice)

    def expects(self, block: Block) -> bool:
        """Whether it is a block of a roster that is asked for."""
        return self.follower.expects(block)

    def add_block(self, block: Block) -> bool:
        """Take a block of the roster; return False for one of anything else. Raises MessageError."""
        return self.follower.add_block(block)

    def take_renewal(self, renewal: Renewal) -> None:
        """Install a new certificate. Raises MessageError."""
        if self.renewing is not None:
            self.renewing.take(renewal)

    def due(self, now: float) -> list[BlockRequest | RenewalRequest]:
        """Return what to ask for at `now`, a reading of a monotonic clock in seconds."""
        renewals = [] if self.renewing is None else self.renewing.due(now)
        return [*self.follower.due(now), *renewals]
