"""What the page of a site shows, read from what the site's loop lets see and from what it has stored.

The page has a thread of its own with its own connection to the state's database: it never waits for the loop,
which trains, nor the loop for it.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from msgspec.structs import replace

from fedmedclip.edge_client.page.view import Glance, SiteView
from fedmedclip.edge_client.site.standing import Now, in_words
from fedmedclip.edge_client.site.state import SiteState

_FRESH_SECONDS = 1.0
_MINUTE = 60.0

Answer = TypeVar("Answer")
Reader = Callable[[SiteState, SiteView, float], SiteView]
"""Adds what it reads to a view, as of a moment in seconds since 1970."""


class PageSource:
    """What is shown now, no older than a second or so; the same object as long as it is the same.

    `empty` says whose page it is; `now` gives where the site stands; `readers` add what is stored. `state` is
    opened in the thread that reads.
    """

    def __init__(
        self,
        empty: SiteView,
        now: Callable[[], Now],
        state: Callable[[], SiteState],
        readers: tuple[Reader, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._empty = empty
        self._now = now
        self._open = state
        self._readers = readers
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "page-reader")
        self._lock = threading.Lock()
        self._state: SiteState | None = None
        self._stored: tuple[object, SiteView] | None = None
        self._view: SiteView | None = None
        self._revision = 0
        self._looked_at = 0.0

    def current(self) -> SiteView:
        """Return what is shown now. Raises StorageError where it cannot be read."""
        with self._lock:
            age = time.monotonic() - self._looked_at
            if self._view is None or age >= _FRESH_SECONDS:
                seen = self._thread.submit(self._look).result()
                self._looked_at = time.monotonic()
                if seen != self._view:
                    self._view = seen
                    self._revision += 1
            return self._view

    def revision(self) -> int:
        """Return a number that is another one once anything that is shown has changed."""
        self.current()
        return self._revision

    def do(self, act: Callable[[SiteState], Answer]) -> Answer:
        """Do something with the state in the thread that reads it; what has come of it is shown at once."""
        try:
            return self._thread.submit(lambda: act(self._opened())).result()
        finally:
            self.refresh()

    def refresh(self) -> None:
        """Read everything anew when somebody looks next."""
        with self._lock:
            self._stored, self._looked_at = None, 0.0

    def close(self) -> None:
        """Release the database."""

        def release() -> None:
            if self._state is not None:
                self._state.close()

        self._thread.submit(release)
        self._thread.shutdown()

    def _opened(self) -> SiteState:
        if self._state is None:
            self._state = self._open()
        return self._state

    def _look(self) -> SiteView:
        now, at, state = self._now(), self._clock(), self._opened()
        # A minute later the time line ends later, and perhaps it is another day.
        mark = (state.changes(), int(at // _MINUTE))
        if self._stored is None or self._stored[0] != mark:
            view = self._empty
            for reader in self._readers:
                view = reader(state, view, at)
            self._stored = (mark, view)
        return _with_glance(self._stored[1], now)


def _with_glance(view: SiteView, now: Now) -> SiteView:
    standing = now.standing
    tone, doing = in_words(now)
    if view.plan is not None and view.plan.awaits_decision and now.connected and standing.declined:
        tone, doing = "waiting", "Waits for your decision on the plan; nothing is trained before."
    plan = standing.plan
    return replace(
        view,
        glance=Glance(
            now.connected,
            now.since,
            standing.joined,
            0 if plan is None else plan.number,
            standing.version,
            0 if plan is None else plan.rounds,
            tone,
            doing,
            _answers(view),
        ),
    )


def _answers(view: SiteView) -> str:
    kept = [] if view.versions is None else view.versions.kept
    active = next((version for version in kept if version.active), None)
    if active is None:
        return "zero-shot: no version is active yet" if view.versions is not None else ""
    words = f"version {active.version}"
    return f"{words}: zero-shot, in place of its heads" if active.zero_shot_answers else words
