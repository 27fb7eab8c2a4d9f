"""Rounds whose updates are summed under masks: who is ready, which try is under way, and what comes of it.

keys of a site -> it counts as ready -> the round is due -> a try -> its sum is the version, or another try
"""

import logging
from dataclasses import dataclass

from fedmedclip.aggregator.configuration import SecureSettings
from fedmedclip.aggregator.progress import Progress
from fedmedclip.aggregator.round_events import SiteExcused, UpdateStored
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.aggregator.secure_round import Phase, SecureTry, Sends
from fedmedclip.aggregator.secure_sum import RoundSum
from fedmedclip.aggregator.steering import Steering
from fedmedclip.protocol.envelope import Envelope
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import (
    Anew,
    Block,
    Complaint,
    Confirmation,
    Listed,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Participants,
    Receipt,
    Reveal,
)
from fedmedclip.protocol.objects import Assembly
from fedmedclip.protocol.secure_aggregation.integers import packed_bytes
from fedmedclip.protocol.secure_aggregation.masks import agreed, private_key

log = logging.getLogger("fedmedclip.aggregator")

SETTLE_SECONDS = 15.0
"""How long the participants of a try that failed have to be ready again, before another begins without."""

SecureMessage = MaskShares | MaskedUpdate | Confirmation | Reveal | Complaint


@dataclass
class _Upload:
    assembly: Assembly
    heard: float


class SecureRounds:
    """Sums the updates of a run whose plan asks for it.

    What it holds is in memory: what survives a restart is the version that a sum made, with whose updates are
    in it. What the operator does too comes from `steering`: a round more, a quarantine.
    """

    def __init__(self, run: Run, progress: Progress, steering: Steering) -> None:
        self._run = run
        self._progress = progress
        self._steering = steering
        self._round = run.global_head.version + 1
        if run.plan.secure is not None:
            progress.begin_sum = self.begin
        self._keys: dict[str, tuple[MaskKeys, bytes]] = {}
        self._unused: set[str] = set()
        self._ended: dict[str, Anew] = {}
        self._spent: set[str] = set()
        self._barred: dict[str, str] = {}
        self._try: SecureTry | None = None
        self._sum: RoundSum | None = None
        self._uploads: dict[str, _Upload] = {}
        self._not_before: tuple[float, frozenset[str]] = (0.0, frozenset())
        self._lacking_reported = False

    def keys(self, site: str, message: MaskKeys, envelope: Envelope, now: float) -> list[Outgoing]:
        """Take a site's keys: it is ready for a try of this round, or asks what became of its update."""
        run, round_number = self._run, message.round_number
        open_round = run.global_head.version + 1
        if run.plan.secure is None:
            raise MessageError("the plan asks for no secure aggregation")
        self._follow()
        if round_number >= open_round:
            run.holds(site, round_number - 1)
        if round_number > open_round:
            # Trained from a version that was lost here: that is asked for first.
            return []
        if round_number < open_round or run.global_head.finished:
            return self._settle_late(site, message)
        if why := run.in_quarantine(site):
            return self._refuse(site, message, why, closed=False)
        if why := self._barred.get(site, ""):
            return self._refuse(site, message, why, closed=True)
        if not self._progress.was_drawn(site, round_number):
            return self._refuse(site, message, f"not drawn for round {round_number}", closed=True)
        outgoing = self._progress.is_there(site, now)
        try:
            for key in (message.cipher_key, message.mask_key):
                agreed(private_key(bytes(16), "probe"), key)
        except MessageError as error:
            log.error("round %d: %s is left out: %s", round_number, site, error)
            self._barred[site] = str(error)
            refused = self._refuse(site, message, str(error), closed=True)
            return outgoing + refused + self._progress.advance(SiteExcused(site, str(error)), now)
        known = self._keys.get(site)
        if known is not None and known[0] == message:
            return outgoing + self._repeat_anew(site)
        self._keys[site] = (message, envelope.signature)
        if self._try is not None:
            outgoing += self._go_on(self._try.leave(site, now), now)
        if message.spent:
            self._spent.add(site)
            self._unused.discard(site)
            said = "it has shown its shares in this round already"
            return outgoing + self._progress.advance(SiteExcused(site, said), now)
        self._unused.add(site)
        return outgoing + self._progress.advance(UpdateStored(site), now)

    def take(self, site: str, message: SecureMessage, envelope: Envelope, now: float) -> list[Outgoing]:
        """Take a message of a try; those of another than the one under way say nothing."""
        self._follow()
        abandoned = self._abandon_with_others(now)
        attempt = self._try
        if attempt is None or message.try_digest != attempt.digest:
            return abandoned
        outgoing = self._progress.is_there(site, now)
        match message:
            case MaskShares():
                sends = attempt.take_shares(site, message, now)
            case MaskedUpdate():
                sends = self._take_masked(attempt, site, message, now)
            case Confirmation():
                sends = attempt.take_confirmation(site, message, envelope.signature, now)
            case Reveal():
                sends = attempt.take_reveal(site, message, now)
            case Complaint():
                sends = attempt.complain(site, message, now)
        return outgoing + self._go_on(sends, now)

    def expects(self, site: str, block: Block) -> bool:
        """Whether a block is of a masked update that is under way."""
        upload = self._uploads.get(site)
        return upload is not None and upload.assembly.digest == block.object_digest

    def block(self, site: str, block: Block, now: float) -> list[Outgoing]:
        """Take a block of a masked update. Raises MessageError when it does not fit."""
        upload = self._uploads[site]
        upload.assembly.add(block.index, block.data)
        upload.heard = now
        if self._try is None or not upload.assembly.complete:
            return []
        del self._uploads[site]
        return self._go_on(self._try.take_masked(site, upload.assembly.data(), now), now)

    def begin(self, now: float) -> list[Outgoing]:
        """Begin a try, when the round is due and none is under way."""
        run, secure = self._run, self._run.plan.secure
        assert secure is not None
        self._follow()
        if self._try is not None:
            return []
        sites = sorted(self._unused & set(self._progress.rounds.delivered))
        wait_until, wanted = self._not_before
        waits = [site for site in wanted - set(sites) if self._progress.rounds.present(site)]
        if now < wait_until and any(site not in self._barred and site not in self._spent for site in waits):
            return []
        round_number = run.global_head.version + 1
        if len(sites) < secure.least:
            if not self._lacking_reported:
                self._lacking_reported = True
                log.warning(
                    "round %d: %d sites are ready, secure aggregation takes %d; waiting",
                    round_number, len(sites), secure.least,
                )  # fmt: skip
            return []
        self._sum = RoundSum(run.plan, run.store, run.global_head)
        listed = [self._listed(site) for site in sites]
        participants = Participants(round_number, self._sum.bounds, self._sum.based, listed)
        self._unused -= set(sites)
        self._try = SecureTry(participants, self._sum.length, secure.bits, self._phase_seconds(), now)
        log.info("round %d: summing the updates of %s under masks", round_number, ", ".join(sites))
        return self._send(self._try.opening())

    def tick(self, now: float) -> list[Outgoing]:
        """Let time pass."""
        self._follow()
        outgoing = self._abandon_with_others(now)
        if (attempt := self._try) is not None:
            for site in attempt.sites:
                if not self._progress.rounds.present(site):
                    outgoing += self._send(attempt.leave(site, now))
            outgoing += self._go_on(attempt.tick(now), now)
            for site, upload in self._uploads.items():
                if now - upload.heard >= 20.0 and (request := upload.assembly.request()):
                    upload.heard = now
                    outgoing += self._run.to(site, request)
        return outgoing + self._skip(now)

    def _abandon_with_others(self, now: float) -> list[Outgoing]:
        """End a try whose sum would have the update of a site that counts no more."""
        if self._try is None:
            return []
        members, quarantined = self._progress.rounds.members, self._run.quarantined
        gone = [site for site in self._try.sites if site in quarantined or site not in members]
        if gone:
            self._try.abandon(f"the update of {', '.join(gone)} does not count any more")
        return self._go_on([], now)

    def _listed(self, site: str) -> Listed:
        keys, signature = self._keys[site]
        known = None if self._run.register is not None else self._run.members.keys[site]
        return Listed(site, known, keys.cipher_key, keys.mask_key, signature)

    def _take_masked(self, attempt: SecureTry, site: str, message: MaskedUpdate, now: float) -> Sends:
        if not attempt.awaits(site, Phase.MASKED):
            return []
        assert self._sum is not None
        if isinstance(message.payload, bytes):
            return attempt.take_masked(site, message.payload, now)
        limit = packed_bytes(self._sum.length, attempt.modulus_bits)
        upload = self._uploads.get(site)
        if upload is None or upload.assembly.digest != message.payload.digest:
            self._uploads[site] = _Upload(Assembly(message.payload, limit), now)
        return []

    def _go_on(self, sends: Sends, now: float) -> list[Outgoing]:
        """Send what a try says, and end it where it is over."""
        outgoing = self._send(sends)
        if self._try is None or self._try.outcome is None:
            return outgoing
        ended, self._try = self._try, None
        assert ended.outcome is not None
        assert self._sum is not None
        outcome = ended.outcome
        self._uploads.clear()
        for site, reason in outcome.at_fault.items():
            log.error("round %d: %s is left out: %s", ended.participants.round_number, site, reason)
            self._barred[site] = reason
        if outcome.total is not None:
            self._sum.apply(ended.participants.round_number, outcome.total, outcome.survivors)
            return outgoing + self._close(outcome.survivors, now)
        log.warning("round %d begins anew: %s", ended.participants.round_number, outcome.reason)
        for site in outcome.liars:
            outgoing += self._steering.quarantine(site, outcome.at_fault[site], now)
        return outgoing + self._begin_anew(ended, outcome.reason, now)

    def _repeat_anew(self, site: str) -> list[Outgoing]:
        """Ask for other keys once more of a site whose keys served a try that is over."""
        in_try = self._try is not None and site in self._try.sites
        if in_try or site in self._unused or site in self._spent or site not in self._ended:
            return []
        return self._run.to(site, self._ended[site])

    def _begin_anew(self, ended: SecureTry, reason: str, now: float) -> list[Outgoing]:
        self._not_before = (now + SETTLE_SECONDS, frozenset(ended.sites))
        outgoing: list[Outgoing] = []
        for site in ended.sites:
            if site not in self._unused:
                self._progress.lose_update(site, ended.participants.round_number, now)
            if why := self._barred.get(site):
                outgoing += self._progress.advance(SiteExcused(site, why), now)
            self._ended[site] = Anew(ended.digest, reason[:400])
            outgoing += self._run.to(site, self._ended[site])
        return outgoing

    def _close(self, survivors: tuple[str, ...], now: float) -> list[Outgoing]:
        """Announce the version that was made, and settle the updates of all who were ready."""
        version = self._run.global_head.version
        log.info("round %d: aggregated the sum of %s", version, ", ".join(survivors) or "nobody")
        keys = dict(self._keys)
        self._over()
        receipts: list[Outgoing] = []
        for site, (message, _) in sorted(keys.items()):
            receipts += self._settle_late(site, message)
        return receipts + self._progress.announce_made(version, now)

    def _follow(self) -> None:
        """Forget what is of a round that is over: a version was taken back, or rolled back to."""
        if self._round != self._run.global_head.version + 1:
            self._over()

    def _over(self) -> None:
        self._round = self._run.global_head.version + 1
        self._keys.clear()
        self._ended.clear()
        self._unused.clear()
        self._spent.clear()
        self._barred.clear()
        self._uploads.clear()
        self._try = self._sum = None
        self._not_before = (0.0, frozenset())
        self._lacking_reported = False

    def _settle_late(self, site: str, message: MaskKeys) -> list[Outgoing]:
        """Say what became of the update of a round that is over."""
        store, round_number = self._run.store, message.round_number
        last = store.last_round(site)
        # It may be in a version that was lost here and taken back: given again, it would count twice.
        unknown = last < round_number and not store.made_here(round_number)
        if round_number == last or unknown:
            return self._run.to(site, Receipt(round_number, True, "", False, message.mark))
        version = self._run.global_head.version
        reason = f"round {round_number} is closed; version {version} is the newest"
        return self._refuse(site, message, reason, closed=True)

    def _refuse(self, site: str, message: MaskKeys, reason: str, *, closed: bool) -> list[Outgoing]:
        return self._run.to(site, Receipt(message.round_number, False, reason[:400], closed, message.mark))

    def _skip(self, now: float) -> list[Outgoing]:
        """Leave a round that cannot be summed: too many have shown their shares of a try that was lost.

        Its version has the head of the one before, and the run one round more.
        """
        run, rounds = self._run, self._progress.rounds
        secure = run.plan.secure
        if self._try is not None or not self._spent or secure is None or run.global_head.finished:
            return []
        able = [
            site
            for site in rounds.members
            if site not in self._spent and site not in self._barred and rounds.present(site)
        ]
        if len(able) >= secure.least:
            return []
        version = run.global_head.version + 1
        log.warning("round %d is skipped: shares of a try that was lost have been shown", version)
        extended = self._steering.revise(now, rounds=run.plan.rounds + 1)
        RoundSum(run.plan, run.store, run.global_head).skip(version)
        return [*extended, *self._close((), now)]

    def _phase_seconds(self) -> float:
        settings = self._run.configuration.secure_aggregation
        return SecureSettings().phase_seconds if settings is None else settings.phase_seconds

    def _send(self, sends: Sends) -> list[Outgoing]:
        return [outgoing for site, message in sends for outgoing in self._run.to(site, message)]
