"""What the page shows, as of one moment: made by the aggregator's loop, read by the page's threads.

The page never touches the run or its database. The loop publishes a view about once a second, more seldom
where that takes longer, and `revision` grows only when something on it has changed.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from fedmedclip.aggregator.chronicle import Happening
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.status import FederationStatus, status_of
from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.version_metrics import site_metrics
from fedmedclip.protocol.messages import Plan

_EVERY_SECONDS = 1.0
# At most so much of the loop's time goes into views: one in fifty.
_LONGEST_SHARE = 50
_VERSIONS = 30
_STEADY_SECONDS = 2.0


@dataclass(frozen=True)
class View:
    """A federation at `at`, in seconds since 1970. `heard` says when sites that are away were heard last.

    `accuracies` are the balanced accuracies of the sites' ensembles, of the newest version that each told of.
    """

    at: float
    status: FederationStatus
    plan: Plan
    timeout_seconds: float
    first_delivery: float | None
    heard: Mapping[str, float] = field(default_factory=dict)
    happenings: Sequence[Happening] = ()
    accuracies: Mapping[str, float] = field(default_factory=dict)
    digests: Sequence[tuple[int, bytes]] = ()


class Showcase:
    """Holds the newest view. `show` is for the loop, all else for any thread."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives the seconds since 1970."""
        self._store = store
        self._clock = clock
        self._next_at: float | None = None
        self._shown: object = None
        self._view: View | None = None
        self._there = threading.Event()
        self._revision = 0

    @property
    def revision(self) -> int:
        """Another number whenever something has changed that is shown."""
        return self._revision

    @property
    def view(self) -> View:
        """The newest view; a page that is asked before there is any waits a moment for it."""
        self._there.wait(10.0)
        if self._view is None:
            raise TimeoutError("the aggregator has not said yet how the federation stands")
        return self._view

    def show(self, coordinator: Coordinator, now: float) -> None:
        """Publish how a federation stands, if that is due. `now` is a reading of a monotonic clock."""
        if self._next_at is not None and now < self._next_at:
            return
        began = time.perf_counter()
        self.put(self._look(coordinator, now))
        self._next_at = now + max(_EVERY_SECONDS, _LONGEST_SHARE * (time.perf_counter() - began))

    def show_last(self, coordinator: Coordinator, now: float) -> None:
        """Publish how a run has ended."""
        self._next_at = None
        self.show(coordinator, now)

    def put(self, view: View) -> None:
        """Publish a view."""
        status = view.status
        # What time alone changes is counted on by the browser.
        members = [
            msgspec.structs.replace(member, seconds=None, late_seconds=None) for member in status.members
        ]
        still = msgspec.structs.replace(status, round_seconds=None, members=members)
        latest = view.happenings[-1] if view.happenings else None
        shown = (
            (still, latest, len(view.happenings), view.plan, view.timeout_seconds),
            dict(view.accuracies),
        )
        self._view = view
        if shown != self._shown:
            self._shown = shown
            self._revision += 1
        self._there.set()

    def _look(self, coordinator: Coordinator, now: float) -> View:
        at, before = self._clock(), self._view
        status = status_of(coordinator, now)
        first = None if status.round_seconds is None else at - status.round_seconds
        heard = {
            member.site: _steady(before.heard.get(member.site) if before else None, at - member.seconds)
            for member in status.members
            if member.seconds is not None and member.part in ("away", "quarantined", "unable")
        }
        is_same = before is not None and before.status.version == status.version
        return View(
            at,
            status,
            coordinator.plan,
            coordinator.rounds.settings.timeout_seconds,
            None if first is None else _steady(before.first_delivery if before else None, first),
            heard,
            tuple(coordinator.chronicle.recent),
            _accuracies(self._store),
            before.digests if before and is_same else tuple(self._store.newest_digests(_VERSIONS)),
        )


def _accuracies(store: Store) -> dict[str, float]:
    told = {site: metrics.classifiers.get("ensemble") for site, metrics in site_metrics(store).items()}
    return {site: figures.balanced_accuracy for site, figures in told.items() if figures is not None}


def _steady(before: float | None, now: float) -> float:
    """Return a moment that is computed anew each time as it was before, where it is the same."""
    return before if before is not None and abs(before - now) < _STEADY_SECONDS else now
