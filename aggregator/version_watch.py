"""What a member shares of a version is kept, warned of, and ends a run that gets no better."""

import logging

from fedmedclip.aggregator.early_end import Patience, why_flat
from fedmedclip.aggregator.metric_warnings import metric_warnings, not_activated, worse_site, worse_sites
from fedmedclip.aggregator.metrics_table import KEPT_VERSIONS, EarlyEnd, Shared
from fedmedclip.aggregator.run import Outgoing, Run
from fedmedclip.aggregator.steering import Steering
from fedmedclip.aggregator.version_metrics import best_version
from fedmedclip.protocol.messages import Metrics

log = logging.getLogger("fedmedclip.aggregator")


class VersionWatch:
    """Takes the metrics of members of a run, which `steering` ends."""

    def __init__(self, run: Run, steering: Steering) -> None:
        self._run = run
        self._steering = steering
        self._worse = set(worse_sites(run.store.metrics))
        """Whom the log has named already, since they got worse."""

    def take(self, site: str, metrics: Metrics, now: float) -> list[Outgoing]:
        """Take what a member shares of a version that is here and not long past; all else is ignored."""
        run, table = self._run, self._run.store.metrics
        newest = run.global_head.version
        if site in run.quarantined or not newest - KEPT_VERSIONS <= metrics.version <= newest:
            return []
        first = not table.of_version(metrics.version)
        shared = Shared(metrics, self._weight(site, metrics), run.wall_clock())
        if not table.put(site, shared):
            return []
        if first:
            table.forget_before(newest - KEPT_VERSIONS, best_version(run.store, run.settings.maximum_share))
        self._log(site, shared)
        return self._end_if_flat(now)

    def warnings(self) -> list[str]:
        """Return what the coordinator should know of what sites share."""
        return metric_warnings(self._run.store)

    def _weight(self, site: str, metrics: Metrics) -> int | None:
        """Return for how many images a member's figures count: no more than its updates may."""
        run = self._run
        if run.settings.weighting == "equal" or metrics.validation_images is None:
            return None
        most = None if run.register is None else run.register.most_samples(site)
        return metrics.validation_images if most is None else max(1, min(metrics.validation_images, most))

    def _log(self, site: str, shared: Shared) -> None:
        if sentence := not_activated(site, shared):
            log.info("%s", sentence)
        if not (sentence := worse_site(self._run.store.metrics, site)):
            self._worse.discard(site)
        elif site not in self._worse:
            self._worse.add(site)
            log.warning("%s", sentence)

    def _end_if_flat(self, now: float) -> list[Outgoing]:
        run, settings, table = self._run, self._run.settings, self._run.store.metrics
        if settings.stop_when_flat is None or run.global_head.finished or run.plan.paused:
            return []
        patience = Patience(
            settings.stop_when_flat, settings.flat_below, settings.minimum_sites, settings.maximum_share
        )
        # Whoever adds rounds to a run that was ended, or rolls it back, wants as many versions more.
        ended = table.early_end()
        since = max(0 if ended is None else ended.version, table.newest_taken_back())
        if not (reason := why_flat(table, patience, since)):
            return []
        version = run.global_head.version
        log.warning("the run ends at version %d: %s", version, reason)
        table.end_early(EarlyEnd(version, reason))
        return self._steering.revise(now, rounds=version)
