"""One try to sum a round's updates without seeing any: which phase it is in, and when that is over.

    shares -> masked updates -> confirmations -> reveals -> the sum, or nothing

A plain state machine: messages and a clock reading go in, messages to participants come out. Participants
fall away in any phase. As long as `threshold` of them are left a phase goes on without the others, once its
time is over; with fewer the try is over and nothing is unmasked. It lives in memory only: an aggregator that
is started again comes to the same one where the same keys come again, and begins another where not.

Bonawitz et al. 2017, figure 4, with its consistency check.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.unmasking import unmasked_sum
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import (
    Complaint,
    Confirmation,
    Confirmations,
    MaskShares,
    Message,
    Participants,
    Reveal,
    RoutedShares,
    SealedShares,
    Survivors,
)
from fedmedclip.protocol.secure_aggregation.integers import modulus_bits, unpack
from fedmedclip.protocol.secure_aggregation.masks import Words
from fedmedclip.protocol.secure_aggregation.shamir import threshold_of
from fedmedclip.protocol.secure_aggregation.shares import commitment

ASK_AGAIN_SECONDS = 20.0

Kind = TypeVar("Kind", MaskShares, Reveal)

Sends = list[tuple[str, Message]]
"""Messages, each with the site that it goes to."""


class Phase(IntEnum):
    """What is waited for."""

    SHARES = 1
    MASKED = 2
    CONFIRMATIONS = 3
    REVEALS = 4
    OVER = 5


@dataclass(frozen=True)
class Outcome:
    """How a try ended: with the sum of the survivors' integers (L,), or without one and why.

    `at_fault` are those that must not be in the next try, and why; `liars` those of them whose shares are
    proven not to be of their keys.
    """

    survivors: tuple[str, ...] = ()
    total: npt.NDArray[np.int64] | None = None
    reason: str = ""
    at_fault: dict[str, str] = field(default_factory=dict)
    liars: tuple[str, ...] = ()


class SecureTry:
    """A try that `participants` announces: sums of `length` integers of `bits` bits each."""

    def __init__(
        self, participants: Participants, length: int, bits: int, phase_seconds: float, now: float
    ) -> None:
        self.participants = participants
        self.digest = participants.digest
        self.sites = tuple(entry.site for entry in participants.listed)
        self.threshold = threshold_of(len(self.sites))
        self.phase = Phase.SHARES
        self.outcome: Outcome | None = None
        """None as long as the try goes on."""
        self.at_fault: dict[str, str] = {}
        self._index = {site: index for index, site in enumerate(self.sites)}
        self._length = length
        self._bits = modulus_bits(bits, len(self.sites))
        self._phase_seconds = phase_seconds
        self._since = now
        self._awaited = set(range(len(self.sites)))
        self._said: dict[int, Message] = dict.fromkeys(self._awaited, participants)
        self._said_at = now
        self._shares: dict[int, MaskShares] = {}
        self._masked: dict[int, Words] = {}
        self._signatures: dict[int, bytes] = {}
        self._reveals: dict[int, Reveal] = {}
        self._sharers: list[int] = []
        self._survivors: list[int] = []

    def opening(self) -> Sends:
        """Return what tells the participants of the try."""
        return [(site, self.participants) for site in self.sites]

    @property
    def modulus_bits(self) -> int:
        """How many bits a masked integer has."""
        return self._bits

    def has_masked(self, site: str) -> bool:
        """Whether a site's update is in the sum that is being made."""
        return self._index.get(site) in self._masked

    def awaits(self, site: str, phase: Phase) -> bool:
        """Whether a phase's message of a site is still to come."""
        return self.phase == phase and self._index.get(site) in self._awaited

    def take_shares(self, site: str, message: MaskShares, now: float) -> Sends:
        """Take what a participant made for the others."""
        return self._take(site, message, Phase.SHARES, self._shares_fit, self._shares, now)

    def take_masked(self, site: str, payload: bytes, now: float) -> Sends:
        """Take a masked update, packed."""
        if not self.awaits(site, Phase.MASKED):
            return []
        index = self._index[site]
        try:
            self._masked[index] = unpack(payload, self._length, self._bits)
        except MessageError as error:
            return self._fault(site, str(error), now)
        return self._answered(index, now)

    def take_confirmation(self, site: str, message: Confirmation, signature: bytes, now: float) -> Sends:
        """Take a survivor's signature under the list of survivors."""
        if not self.awaits(site, Phase.CONFIRMATIONS):
            return []
        if message.survivors != self._survivors:
            return self._fault(site, "it confirms another list of survivors", now)
        self._signatures[self._index[site]] = signature
        return self._answered(self._index[site], now)

    def take_reveal(self, site: str, message: Reveal, now: float) -> Sends:
        """Take the shares that a survivor gives."""
        return self._take(site, message, Phase.REVEALS, self._reveal_fits, self._reveals, now)

    def complain(self, site: str, message: Complaint, now: float) -> Sends:
        """End the try: of two participants, one lies about what the other made for it."""
        if self.phase not in (Phase.SHARES, Phase.MASKED) or site not in self._index:
            return []
        if message.about >= len(self.sites) or self.sites[message.about] == site:
            return self._fault(site, "it complains about nobody", now)
        other = self.sites[message.about]
        self.at_fault[other] = f"{site} cannot use the shares that it made: {message.reason}"
        self.at_fault[site] = f"it says that it cannot use the shares of {other}"
        self._end(f"{site} complains about {other}: {message.reason}")
        return []

    def leave(self, site: str, now: float) -> Sends:
        """Go on without a participant: it is gone, or it has lost its keys."""
        index = self._index.get(site)
        if index is None or index not in self._awaited:
            return []
        self._awaited.discard(index)
        return self._proceed(now)

    def abandon(self, reason: str) -> None:
        """End the try, where the list of whose updates are in its sum is not signed yet."""
        if self.phase < Phase.REVEALS:
            self._end(reason)

    def tick(self, now: float) -> Sends:
        """Let time pass: a phase ends, or what is awaited is asked for again."""
        if self.phase is Phase.OVER:
            return []
        if now - self._since >= self._phase_seconds:
            self._awaited.clear()
            return self._proceed(now)
        if now - self._said_at < ASK_AGAIN_SECONDS:
            return []
        self._said_at = now
        return [(self.sites[index], self._said[index]) for index in sorted(self._awaited)]

    def _take(
        self,
        site: str,
        message: Kind,
        phase: Phase,
        fault_of: Callable[[int, Kind], str],
        taken: dict[int, Kind],
        now: float,
    ) -> Sends:
        if not self.awaits(site, phase):
            return []
        index = self._index[site]
        if fault := fault_of(index, message):
            return self._fault(site, fault, now)
        taken[index] = message
        return self._answered(index, now)

    def _shares_fit(self, index: int, message: MaskShares) -> str:
        made, wanted = len(message.shares), len(self.sites)
        return "" if made == wanted else f"it made {made} shares for {wanted} participants"

    def _reveal_fits(self, index: int, message: Reveal) -> str:
        if len(message.shares) != len(self._sharers):
            return f"it gave {len(message.shares)} shares of {len(self._sharers)}"
        for owner, share in zip(self._sharers, message.shares, strict=True):
            made = self._shares[owner].shares[index]
            expected = made.self_commitment if owner in self._survivors else made.mask_commitment
            if commitment(share) != expected:
                return f"the share that it gave of {self.sites[owner]} is not the one that it got"
        return ""

    def _fault(self, site: str, reason: str, now: float) -> Sends:
        self.at_fault[site] = reason
        return self.leave(site, now)

    def _answered(self, index: int, now: float) -> Sends:
        self._awaited.discard(index)
        return self._proceed(now)

    def _proceed(self, now: float) -> Sends:
        """Go on to the next phase when nobody is awaited any more, or end where too few are left."""
        heard: dict[Phase, Collection[int]] = {
            Phase.SHARES: self._shares,
            Phase.MASKED: self._masked,
            Phase.CONFIRMATIONS: self._signatures,
            Phase.REVEALS: self._reveals,
        }
        if self.phase not in heard:
            return []
        answered = heard[self.phase]
        if len(answered) + len(self._awaited) < self.threshold:
            self._end(
                f"{len(answered)} of {len(self.sites)} participants are left, {self.threshold} are needed"
            )
            return []
        enough = self.phase is Phase.REVEALS and len(answered) >= self.threshold
        if self._awaited and not enough:
            return []
        return self._next(sorted(answered), now)

    def _next(self, answered: Sequence[int], now: float) -> Sends:
        match self.phase:
            case Phase.SHARES:
                self._sharers = list(answered)
                said: dict[int, Message] = {index: self._routed(index) for index in answered}
            case Phase.MASKED:
                self._survivors = list(answered)
                said = dict.fromkeys(answered, Survivors(self.digest, self._survivors))
            case Phase.CONFIRMATIONS:
                signatures = sorted(self._signatures.items())
                said = dict.fromkeys(answered, Confirmations(self.digest, signatures))
            case _:
                self._unmask()
                return []
        self.phase = Phase(self.phase + 1)
        self._since = self._said_at = now
        self._awaited, self._said = set(answered), said
        return [(self.sites[index], message) for index, message in said.items()]

    def _routed(self, receiver: int) -> RoutedShares:
        shares: list[tuple[int, SealedShares]] = [
            (owner, self._shares[owner].shares[receiver]) for owner in self._sharers
        ]
        return RoutedShares(self.digest, shares)

    def _unmask(self) -> None:
        total, liars = unmasked_sum(
            self.participants, self._masked, self._shares, self._sharers, self._reveals, self._bits
        )
        if total is None:
            names = tuple(self.sites[index] for index in liars)
            self.at_fault |= dict.fromkeys(names, "the shares that it made are not of its keys")
            self._end(f"the shares that {', '.join(names)} made are not of their keys", names)
            return
        self.phase = Phase.OVER
        survivors = tuple(self.sites[index] for index in self._survivors)
        self.outcome = Outcome(survivors, total, "", self.at_fault)

    def _end(self, reason: str, liars: tuple[str, ...] = ()) -> None:
        self.phase = Phase.OVER
        self._awaited.clear()
        self.outcome = Outcome((), None, reason, self.at_fault, liars)
