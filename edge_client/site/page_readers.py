"""Reading for the page what a site's state folder holds: events, the privacy budget, the report on images."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from fedmedclip.edge_client.data_report.at_start import FOLDER
from fedmedclip.edge_client.data_report.report import FINDINGS, PAGE
from fedmedclip.edge_client.images.split import Part
from fedmedclip.edge_client.page import view as shown
from fedmedclip.edge_client.page.view import SiteView
from fedmedclip.edge_client.site.events import MOST_EVENTS, Event
from fedmedclip.edge_client.site.spending import spending_of
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.privacy import PrivacySettings

_MINUTE = 60.0
_LONGEST_HISTORY = 7 * 86_400.0
_SHORTEST_HISTORY = 600.0
_CLOSING = ("disconnected", "stopped")


class _Count(msgspec.Struct):
    images: int = 0


class _Class(msgspec.Struct):
    name: str
    images: int
    different: int
    groups: int
    parts: Mapping[Part, _Count]


class _Skipped(msgspec.Struct):
    reason: str
    count: int


class _Groups(msgspec.Struct):
    count: int
    largest: int


class _Split(msgspec.Struct):
    test: int
    test_copies_in_training: int
    test_look_alikes_in_training: int


class _Findings(msgspec.Struct):
    """Of the findings what has no names of files: see `data_report.findings.DataFindings`."""

    images: int
    different: int
    classes: list[_Class]
    skipped: list[_Skipped]
    ignored_files: int
    groups: _Groups
    pairs_across: Mapping[str, int]
    pairs_within: Mapping[str, int]
    split: _Split | None
    remarks: list[msgspec.Raw]


def read_events(state: SiteState, view: SiteView, at: float) -> SiteView:
    """Add what happened here, and when the site was connected."""
    events = state.events.newest()
    until = (at // _MINUTE + 1) * _MINUTE
    first = max(events[0].at if events else at, until - _LONGEST_HISTORY)
    since = min(first, until - _SHORTEST_HISTORY)
    history = shown.History(
        since,
        until,
        spans(events, until),
        [shown.Event(event.at, event.kind, event.words) for event in events],
    )
    return replace(view, history=history)


def with_decisions(state: SiteState, view: SiteView, at: float) -> SiteView:
    """Add to what happened what was decided of plans, and what became of versions, as other parts have it."""
    history = view.history
    if history is None:
        return view
    decisions = [] if view.plan is None else view.plan.decisions
    versions = [] if view.versions is None else view.versions.kept
    more = [
        shown.Event(
            found.at,
            "approved" if found.approved else "refused the plan",
            f"by {found.by}" + (f": {found.reason}" if found.reason else ""),
        )
        for found in decisions
    ]
    more += [
        shown.Event(found.made_at, "version", f"{found.version}: {found.verdict}; {found.reason}")
        for found in versions
    ]
    events = sorted([*history.events, *more], key=lambda event: event.at)
    since = min([history.since, *(event.at for event in events if event.at >= at - _LONGEST_HISTORY)])
    return replace(view, history=replace(history, since=since, events=events[-MOST_EVENTS:]))


def spans(events: list[Event], until: float) -> list[tuple[float, float]]:
    """Return from when until when the site was connected. A process that was killed said nothing at its end:
    such a span ends with the last that was heard of it.
    """
    found: list[tuple[float, float]] = []
    begun, heard = None, 0.0
    for event in events:
        if begun is not None and event.kind in (*_CLOSING, "started"):
            found.append((begun, heard if event.kind == "started" else event.at))
            begun = None
        if event.kind == "connected":
            begun = event.at if begun is None else begun
        heard = event.at
    return found if begun is None else [*found, (begun, until)]


def privacy_reader(own: PrivacySettings) -> Callable[[SiteState, SiteView, float], SiteView]:
    """Return what adds the privacy budget, where there is one or something was spent."""
    known: tuple[int, shown.Privacy | None] = (-1, None)

    def read(state: SiteState, view: SiteView, at: float) -> SiteView:
        nonlocal known
        releases = len(state.releases.listing())
        if releases != known[0]:
            known = (releases, _privacy(state, own, releases))
        return replace(view, privacy=known[1])

    return read


def _privacy(state: SiteState, own: PrivacySettings, releases: int) -> shown.Privacy | None:
    if not releases and own.epsilon is None:
        return None
    try:
        spending = spending_of(state.releases, own)
    except InvalidInputError:
        # Without dp-accounting, which such releases need, nothing private was released here.
        return None
    return shown.Privacy(spending.spent, spending.epsilon, spending.delta, releases)


def data_reader(state_folder: Path) -> Callable[[SiteState, SiteView, float], SiteView]:
    """Return what adds the counts of the report on the site's images. File names are not even read."""

    def read(state: SiteState, view: SiteView, at: float) -> SiteView:
        return replace(view, data=read_data(state_folder / FOLDER))

    return read


def read_data(folder: Path) -> shown.Data | None:
    """Return the counts of the report in a folder; None where there is none that can be read."""
    try:
        found = msgspec.json.decode((folder / FINDINGS).read_bytes(), type=_Findings)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    pairs = {
        kind: found.pairs_across.get(kind, 0) + found.pairs_within.get(kind, 0)
        for kind in ("same bytes", "same pixels", "near-copy", "look-alike")
    }
    split = found.split
    mates = None if split is None else split.test_copies_in_training + split.test_look_alikes_in_training
    return shown.Data(
        found.images,
        found.different,
        [_class_count(one) for one in found.classes],
        [shown.Skipped(one.reason, one.count) for one in found.skipped],
        found.ignored_files,
        found.groups.count,
        found.groups.largest,
        pairs["same bytes"] + pairs["same pixels"],
        pairs["near-copy"],
        pairs["look-alike"],
        sum(found.pairs_across.values()),
        None if split is None else split.test,
        mates,
        len(found.remarks),
        str((folder / PAGE).absolute()),
    )


def _class_count(one: _Class) -> shown.ClassCount:
    of = {part: count.images for part, count in one.parts.items()}
    return shown.ClassCount(
        one.name,
        one.images,
        one.different,
        one.groups,
        of.get("train", 0),
        of.get("validation", 0),
        of.get("test", 0),
    )
