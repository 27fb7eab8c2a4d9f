"""What a site is told of its update, and what the round is told: it counts, or the site is not waited for."""

import logging

from fedmedclip.aggregator.intake import Terms, Verdict
from fedmedclip.aggregator.progress import Progress
from fedmedclip.aggregator.round_events import REFUSED_UPDATE, SiteExcused, UpdateStored
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.protocol.messages import Abstain, Block, Receipt, Update
from fedmedclip.protocol.plan_words import AWAITS_CONSENT, MORE_ROUNDS

log = logging.getLogger("fedmedclip.aggregator")


class Settling:
    """Settles the updates of members, whole or in blocks."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress

    def update(self, site: str, update: Update, now: float) -> list[Outgoing]:
        """Take an update's message; a receipt follows with its last block, where it has any."""
        run, open_round = self._run, self._run.global_head.version + 1
        if update.round_number >= open_round:
            # Whoever trains a round holds the version before it, and publishes no status to say so.
            run.holds(site, update.round_number - 1)
        if update.round_number > open_round:
            # Trained from a version that was lost here: it is neither counted nor refused, but asked for.
            return []
        drawn = self._progress.was_drawn(site, update.round_number)
        before = run.intake.standing(site)
        verdict = run.intake.update(
            site,
            update,
            self._terms(),
            now,
            drawn=drawn,
            dropped=run.store.dropped.holds(site, update.round_number),
            unwanted=run.in_quarantine(site),
        )
        return self._settle(site, verdict, before, now)

    def block(self, site: str, block: Block, now: float) -> list[Outgoing]:
        """Take a block of an update that is under way. Raises MessageError when it does not fit."""
        if site in self._run.quarantined:
            return []
        before = self._run.intake.standing(site)
        return self._settle(site, self._run.intake.block(site, block, self._terms(), now), before, now)

    def abstain(self, site: str, abstain: Abstain, now: float) -> list[Outgoing]:
        """Let the open round not wait for a site that says why it delivers nothing."""
        if abstain.round_number != self._run.global_head.version + 1:
            return []
        if self._run.store.dropped.holds(site, abstain.round_number):
            # Nobody waits for it, nor for its operator's decision.
            return []
        log.warning("round %d: %s abstains: %s", abstain.round_number, site, abstain.reason)
        undecided = abstain.reason.startswith((MORE_ROUNDS, AWAITS_CONSENT))
        return self._progress.advance(
            SiteExcused(site, f"it abstained: {abstain.reason}", undecided=undecided), now
        )

    def _terms(self) -> Terms:
        head, run = self._run.global_head, self._run
        return Terms(
            head.version,
            head.finished,
            run.plan.maximum_update_norm,
            run.settings.maximum_staleness,
            run.plan.privacy is not None,
        )

    def _settle(self, site: str, verdict: Verdict | None, before: object, now: float) -> list[Outgoing]:
        """Tell a site what became of its update, and the round of what it changes there.

        `before` is how the intake stood before what came: a copy of what is here already shows no presence.
        """
        new = self._run.intake.standing(site) != before
        return (self._progress.is_there(site, now) if new else []) + self._conclude(site, verdict, now)

    def _conclude(self, site: str, verdict: Verdict | None, now: float) -> list[Outgoing]:
        if verdict is None:
            return []
        number, refusal = verdict.round_number, verdict.refusal
        if refusal:
            log.warning("refused the update of %s for round %d: %s", site, number, refusal)
            self._run.chronicle.note("refused", site, f"update of round {number}: {refusal}")
        receipt = self._run.to(
            site, Receipt(number, not refusal, refusal[:400], verdict.closed, verdict.mark)
        )
        if verdict.closed or verdict.known or self._run.global_head.finished:
            return receipt
        if refusal and self._run.store.dropped.holds(site, number):
            # The round is not waiting for it, and knows why.
            return receipt
        if refusal:
            excused = SiteExcused(site, REFUSED_UPDATE + refusal)
            return receipt + self._progress.advance(excused, now)
        return receipt + self._progress.advance(UpdateStored(site, verdict.late), now)
