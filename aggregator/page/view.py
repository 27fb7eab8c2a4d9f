"""What the page shows, as of one moment: made by the aggregator's loop, read by the page's threads.

The page never touches the run or its database. The loop publishes a view about once a second, more seldom
where that takes longer, and `revision` grows only when something on it has changed.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from fedmedclip.aggregator.chronicle import Happening
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.page.plan import plan_in_words
from fedmedclip.aggregator.status import FederationStatus, status_of
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.messages import Plan

_EVERY_SECONDS = 1.0
# At most so much of the loop's time goes into views: one in fifty.
_LONGEST_SHARE = 50
_VERSIONS = 30
_STEADY_SECONDS = 2.0
# Who follows asks every second.
_FOLLOWS_SECONDS, _LAST_SECONDS = 3.0, 2.0

Interval = tuple[float, float] | None


class Figures(Protocol):
    """How good a version is, by what the sites share of it."""

    @property
    def version(self) -> int: ...
    @property
    def sites(self) -> int: ...
    @property
    def weighted_mean(self) -> float | None: ...
    @property
    def worst_site(self) -> str | None: ...
    @property
    def worst(self) -> float | None: ...
    @property
    def best(self) -> bool: ...
    @property
    def interval(self) -> Interval: ...
    @property
    def worst_interval(self) -> Interval: ...


class Traffic(Protocol):
    """The bytes of a round, as the aggregator sent and received them."""

    @property
    def round_number(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def received_bytes(self) -> int: ...


@dataclass(frozen=True)
class Sources:
    """Where the page has from what is no part of the status.

    The first three are asked in the loop's thread; `in_words` says in the page's what a plan asks for, and
    `metrics_text`, where it is given, what Prometheus reads.
    """

    figures: Callable[[Store], Sequence[Figures]] = lambda store: ()
    accuracies: Callable[[Store], Mapping[str, float]] = lambda store: {}
    traffic: Callable[[FederationStatus], Sequence[Traffic]] = lambda status: getattr(status, "traffic", ())
    in_words: Callable[[Plan], Sequence[tuple[str, str]]] = plan_in_words
    metrics_text: Callable[[FederationStatus], bytes] | None = None


@dataclass(frozen=True)
class View:
    """A federation at `at`, in seconds since 1970. `heard` says when sites that are away were heard last."""

    at: float
    status: FederationStatus
    plan: Plan
    timeout_seconds: float
    first_delivery: float | None
    heard: Mapping[str, float] = field(default_factory=dict)
    happenings: Sequence[Happening] = ()
    figures: Sequence[Figures] = ()
    accuracies: Mapping[str, float] = field(default_factory=dict)
    traffic: Sequence[Traffic] = ()
    digests: Sequence[tuple[int, bytes]] = ()


class Showcase:
    """Holds the newest view. `show` is for the loop, all else for any thread."""

    def __init__(self, store: Store, sources: Sources, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives the seconds since 1970."""
        self._store = store
        self._sources = sources
        self._clock = clock
        self._next_at: float | None = None
        self._shown: object = None
        self._view: View | None = None
        self._there = threading.Event()
        self._revision = 0
        self._asked_at: float | None = None

    @property
    def revision(self) -> int:
        """Another number whenever something has changed that is shown. Who follows the page asks for it."""
        self._asked_at = time.monotonic()
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
        """Publish how a run has ended, and where somebody follows the page, let them read it."""
        self._next_at = None
        self.show(coordinator, now)
        if self._asked_at is not None and time.monotonic() - self._asked_at < _FOLLOWS_SECONDS:
            time.sleep(_LAST_SECONDS)

    def put(self, view: View) -> None:
        """Publish a view."""
        status = view.status
        # What time alone changes is counted on by the browser.
        members = [msgspec.structs.replace(member, seconds=None) for member in status.members]
        still = msgspec.structs.replace(status, round_seconds=None, members=members)
        latest = view.happenings[-1] if view.happenings else None
        shown = (
            (still, latest, len(view.happenings), view.plan, view.timeout_seconds),
            (view.traffic, list(view.figures), dict(view.accuracies)),
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
            tuple(self._sources.figures(self._store)),
            self._sources.accuracies(self._store),
            tuple(self._sources.traffic(status)),
            before.digests if before and is_same else tuple(self._store.newest_digests(_VERSIONS)),
        )


def _steady(before: float | None, now: float) -> float:
    """Return a moment that is computed anew each time as it was before, where it is the same."""
    return before if before is not None and abs(before - now) < _STEADY_SECONDS else now
