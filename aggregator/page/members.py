"""The members: a row for each, and a lane of the time line for as many as can be looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fedmedclip.aggregator.chronicle import Happening
from fedmedclip.aggregator.page.glance import of_part
from fedmedclip.aggregator.page.view import View
from fedmedclip.aggregator.status import FederationStatus, MemberStatus, Part
from fedmedclip.protocol.pages.charts import Lane, time_line
from fedmedclip.protocol.pages.elements import Child, Html, Kind, badge, element, joined, moment, table

_BADGES: dict[Part, Kind] = {
    "delivered": "good", "here": "good", "awaited": "waiting", "not drawn": "quiet", "unknown": "quiet",
    "excused": "bad", "quarantined": "bad", "away": "bad", "unable": "bad",
}  # fmt: skip
# Whoever is not as they should be comes first where there is no room for all.
_ORDER = ("unable", "quarantined", "excused", "away", "awaited")

_LANES, _MARKS = 40, 480
_SHORTEST_SECONDS, _LONGEST_SECONDS = 10.0, 86_400.0
_SYMBOLS = {
    "joined": "+", "delivered": "●", "refused": "✕", "excused": "–", "quarantined": "▲", "released": "△",
    "removed": "■",
}  # fmt: skip
_LEGEND = (
    "A bar: online. + joined, ● delivered an update, ✕ something of it was refused, – not waited for in that "
    "round, ▲ put in quarantine, △ released, ■ no member any more."
)


def members(view: View) -> Html:
    """Return the table of all members."""
    status = view.status
    columns = [column for column in _COLUMNS if any(column.cell(view, member) for member in status.members)]
    rows = [[column.cell(view, member) for column in columns] for member in status.members]
    numbers = [place for place, column in enumerate(columns) if column.is_number]
    said = element("p", _counts(status), class_="faint")
    return joined([said, table("Members", [column.name for column in columns], rows, numbers)])


def _counts(status: FederationStatus) -> str:
    parts = sorted({member.part for member in status.members})
    counted = [f"{len(of_part(status, part))} {part}" for part in parts]
    refused = "Refused counts messages since the aggregator started."
    return f"{', '.join(counted)}. {refused}" if counted else "Nobody has joined yet."


@lru_cache(maxsize=32)
def _badge(part: Part) -> Html:
    return badge(_BADGES[part], part)


def _heard(view: View, member: MemberStatus) -> Child:
    """Whoever is online was heard within its lease."""
    at = view.heard.get(member.site)
    return None if at is None else moment(at, ago=True)


def _accuracy(view: View, member: MemberStatus) -> Child:
    accuracy = view.accuracies.get(member.site)
    return None if accuracy is None else f"{accuracy:.1%}"


def _spent(view: View, member: MemberStatus) -> Child:
    spent = member.privacy
    return None if spent is None else f"{spent.spent:.3g} of {spent.epsilon:g} (delta {spent.delta:g})"


@dataclass(frozen=True)
class _Column:
    name: str
    cell: Callable[[View, MemberStatus], Child]
    is_number: bool = False


# A column that would be empty is left out.
_COLUMNS = (
    _Column("Site", lambda view, member: member.site),
    _Column("Part in the open round", lambda view, member: _badge(member.part)),
    _Column("Why", lambda view, member: member.reason),
    _Column("Version", lambda view, member: member.version, is_number=True),
    _Column("Accuracy", _accuracy, is_number=True),
    _Column("Privacy spent", _spent),
    _Column("Software", lambda view, member: member.software),
    _Column("Refused", lambda view, member: member.refused_messages or None, is_number=True),
    _Column("Last heard", _heard),
    _Column("What the rule did", lambda view, member: member.last_round),
)


def time_lines(view: View) -> Html:
    """Return what each site did lately: those that need a look first, where there are too many for all."""
    shown = _chosen(view.status)
    if not shown:
        return element("p", "Nobody has joined yet.", class_="faint")
    of_site: dict[str, list[Happening]] = {member.site: [] for member in shown}
    first = view.at
    for happening in view.happenings:
        first = min(first, happening.at)
        if happening.site in of_site:
            of_site[happening.site].append(happening)
    start = max(min(first, view.at - _SHORTEST_SECONDS), view.at - _LONGEST_SECONDS)
    lanes = [
        Lane(
            member.site,
            _spans(of_site[member.site], start, view.at, online=member.part != "away"),
            _marks(of_site[member.site], start, view.at, _MARKS // len(shown)),
        )
        for member in shown
    ]
    more = len(view.status.members) - len(shown)
    said = f" {more} more are in the table of members." if more else ""
    described = f"When each of {len(shown)} sites was online, and what it did. The events below say the same."
    return joined(
        [
            element("p", _LEGEND + said, class_="faint"),
            time_line("Time line of the sites", described, lanes, start, view.at),
        ]
    )


def _chosen(status: FederationStatus) -> list[MemberStatus]:
    if len(status.members) <= _LANES:
        return status.members
    return sorted(status.members, key=_place)[:_LANES]


def _place(member: MemberStatus) -> tuple[int, str]:
    return _ORDER.index(member.part) if member.part in _ORDER else len(_ORDER), member.site


def _spans(
    happenings: Sequence[Happening], start: float, end: float, *, online: bool
) -> list[tuple[float, float]]:
    """Return when a site was online; it is now if `online` says so."""
    spans: list[tuple[float, float]] = []
    begun: float | None = None
    is_told = False
    for happening in happenings:
        if happening.kind in ("joined", "online"):
            begun, is_told = happening.at if begun is None else begun, True
        elif happening.kind in ("offline", "removed"):
            # What began before anything that is told here, began before it is shown.
            if begun is not None or not is_told:
                spans.append((start if begun is None else begun, happening.at))
            begun, is_told = None, True
    if online:
        spans.append((begun if begun is not None else (spans[-1][1] if spans else start), end))
    return [(max(since, start), until) for since, until in spans if until > start]


def _marks(
    happenings: Sequence[Happening], start: float, end: float, most: int
) -> list[tuple[float, str, str]]:
    """Return the newest marks of a lane, where those of a kind would lie upon each other one of them."""
    kept: dict[tuple[str, int], tuple[float, str, str]] = {}
    cell = max(end - start, 1.0) / 60
    for happening in happenings:
        symbol = _SYMBOLS.get(happening.kind)
        if symbol is None or happening.at < start:
            continue
        words = f"{happening.kind}, round {happening.round_number}"
        words += f": {happening.words}" if happening.words else ""
        kept[happening.kind, int((happening.at - start) / cell)] = (happening.at, symbol, words)
    return sorted(kept.values())[-max(most, 6) :]
