"""How a run moves on: what happens goes to the rounds, and what these answer is carried out.

event -> who is drawn is written down and called -> a round that closes is aggregated, stored, announced
"""

import logging
from collections.abc import Callable
from functools import partial

from fedmedclip.aggregator.aggregation import Weighing
from fedmedclip.aggregator.round_events import (
    Action,
    CloseRound,
    Event,
    HeadAdvanced,
    ReportOverdue,
    RoundSettings,
    SiteExcused,
    SiteHeard,
    SiteLeft,
    UpdateLost,
    UpdateStored,
)
from fedmedclip.aggregator.round_logic import Rounds
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.aggregator.version_metrics import best_version
from fedmedclip.protocol import topics
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.participation import LOTS, lot_of

log = logging.getLogger("fedmedclip.aggregator")

DROPPED = "dropped by the coordinator: this round is made without it"


class Progress:
    """Moves the rounds of a run on, which it rebuilds from the store."""

    def __init__(self, run: Run, now: float) -> None:
        self._run = run
        self.begin_sum: Callable[[float], list[Outgoing]] | None = None
        """What a round that is due begins instead of aggregating what is stored, where updates are summed
        under masks.
        """
        # After a restart every member counts as present, until it says otherwise or its lease ends.
        open_round = run.global_head.version + 1
        self.rounds = Rounds(
            self._settings(),
            run.global_head.version,
            run.members.active,
            now,
            partial(lot_of, run.plan.seed),
            run.store.drawn_below(open_round),
            {site: run.in_quarantine(site) for site in run.quarantined},
        )
        for site in run.store.dropped.sites(open_round):
            if site in self.rounds.members:
                self.rounds.handle(SiteExcused(site, DROPPED), now)
        for site, round_number in run.store.stored_updates():
            if site not in self.rounds.members:
                if site not in run.members.keys:
                    log.error(
                        "the stored update of %s for round %d is of nobody: dropped", site, round_number
                    )
                run.store.forget_update(round_number, site)
                continue
            self.rounds.handle(UpdateStored(site, round_number < open_round), now)
        self._record_draw()

    def _settings(self) -> RoundSettings:
        plan, settings = self._run.plan, self._run.settings
        return RoundSettings(
            plan.rounds,
            settings.minimum_sites,
            settings.round_timeout_seconds,
            settings.lease_seconds,
            plan.paused,
            settings.sites_per_round,
            settings.buffer_size,
        )

    def follow_plan(self, plan: Plan) -> None:
        """Go on by a revision of the run's plan, which is on disk when this returns."""
        self._run.plan = plan
        self._run.store.revise(plan)
        self._run.global_head.rounds = plan.rounds
        self.follow_settings()

    def follow_settings(self) -> None:
        """Go on by the plan and the configuration as they are now."""
        self.rounds.settings = self._settings()

    def advance(self, event: Event, now: float) -> list[Outgoing]:
        """Move the round on; a round that closes is aggregated, stored and announced before this returns."""
        action = self.rounds.handle(event, now)
        drawn_before = self._run.global_head.drawn_below
        if self._record_draw() and not isinstance(event, HeadAdvanced):
            return self._call(drawn_before) + self._carry_out(action, now)
        return self._carry_out(action, now)

    def is_there(self, site: str, now: float) -> list[Outgoing]:
        """Renew a lease, for something that nobody but the site can have sent now."""
        return self.advance(SiteHeard(site), now) if self._run.members.takes_part(site) else []

    def is_gone(self, site: str, now: float) -> list[Outgoing]:
        """End the lease of a site that says that it goes."""
        return self.advance(SiteLeft(site), now) if self._run.members.takes_part(site) else []

    def lose_update(self, site: str, round_number: int, now: float) -> None:
        """Take note that a stored update was dropped; the round moves on with the next event."""
        self.rounds.handle(UpdateLost(site, round_number <= self._run.global_head.version), now)

    def was_drawn(self, site: str, round_number: int) -> bool:
        """Whether a site was drawn for a round that is open or closed."""
        if round_number == self._run.global_head.version + 1:
            return self.rounds.drawn(site)
        drawn_below = self._run.store.drawn_below(round_number)
        return drawn_below is None or lot_of(self._run.plan.seed, site, round_number) < drawn_below

    def _record_draw(self) -> bool:
        """Write down who is drawn for the open round; return whether these are others than before."""
        head, drawn_below = self._run.global_head, self.rounds.drawn_below
        if drawn_below == head.drawn_below:
            return False
        head.drawn_below = drawn_below
        self._run.store.draw(head.version + 1, LOTS if drawn_below is None else drawn_below)
        return True

    def _call(self, drawn_before: int | None) -> list[Outgoing]:
        """Tell those who are drawn since the version was announced, and nobody else."""
        head, seed = self._run.global_head, self._run.plan.seed
        called = [
            site
            for site in self.rounds.awaited
            if drawn_before is not None and lot_of(seed, site, head.version + 1) >= drawn_before
        ]
        return [message for site in called for message in self._run.to(site, head.call())]

    def _carry_out(self, action: Action | None, now: float) -> list[Outgoing]:
        match action:
            case CloseRound() if self.begin_sum is not None:
                return self.begin_sum(now)
            case CloseRound(round_number, sites):
                if damaged := self._run.store.damaged_updates():
                    return self._ask_again_for(damaged, now)
                return self._close(round_number, sites, now)
            case ReportOverdue(round_number, delivered, needed):
                log.warning(
                    "round %d: time is over, but only %d of at least %d sites have delivered; still "
                    "waiting%s",
                    round_number,
                    delivered,
                    needed,
                    "".join(f"; {site}: {reason}" for site, reason in self.rounds.excused().items()),
                )
        return []

    def _close(self, round_number: int, sites: tuple[str, ...], now: float) -> list[Outgoing]:
        run = self._run
        run.global_head.aggregate(round_number, self._weighing())
        run.intake.clear()
        log.info("round %d: aggregated %s", round_number, ", ".join(sites))
        return self.announce_made(round_number, now)

    def announce_made(self, version: int, now: float) -> list[Outgoing]:
        """Go on to the round after a version that was made here, and tell everybody of it."""
        run = self._run
        best = best_version(run.store, run.settings.maximum_share)
        run.global_head.keep_at_most(run.settings.keep_megabytes << 20, best)
        # First the round: an announcement says who is drawn for it.
        advanced = self.advance(HeadAdvanced(version), now)
        return self._broadcast() + advanced

    def _weighing(self) -> Weighing:
        settings, register = self._run.settings, self._run.register
        return Weighing(
            settings.weighting,
            settings.maximum_share,
            (lambda site: None) if register is None else register.most_samples,
        )

    def _ask_again_for(self, damaged: list[tuple[str, int]], now: float) -> list[Outgoing]:
        """Drop updates that the disk has damaged; who is present and has his still sends it once more."""
        run = self._run
        outgoing: list[Outgoing] = []
        for site, round_number in damaged:
            log.error("the stored update of %s for round %d is damaged; asking for it", site, round_number)
            run.store.forget_update(round_number, site)
            self.lose_update(site, round_number, now)
            outgoing += run.to(site, run.global_head.call())
        return outgoing

    def _broadcast(self) -> list[Outgoing]:
        federation, head = self._run.settings.name, self._run.global_head
        announcement = head.announcement()
        blocks = head.blocks_behind(announcement)
        return [
            Outgoing(topics.head(federation), announcement, retain=True),
            *(Outgoing(topics.blocks(federation), block) for block in blocks),
        ]
