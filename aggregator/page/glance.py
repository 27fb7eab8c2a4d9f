"""The first thing on the page: where the run stands, who is waited for and why, what to worry about."""

from collections.abc import Sequence

from fedmedclip.aggregator.page.view import View
from fedmedclip.aggregator.status import FederationStatus, MemberStatus
from fedmedclip.protocol.pages.elements import Child, Html, badge, element, facts, joined, moment
from fedmedclip.protocol.progress import duration

_NAMED = 8

ABOUT = (
    "Hospitals train one image classifier together. Images never leave a hospital: each trains on its own, "
    "and sends only a small change of the shared head."
)
_ROUND = (
    "A round: every hospital takes the newest version of the shared head, trains it on its own images, and "
    "sends the difference. When the updates that are waited for have come, or the time limit is over and "
    "enough have come, the aggregator makes one new version of them and tells every hospital. Then the next "
    "round begins."
)


def glance(view: View) -> Html:
    """Return the section."""
    status = view.status
    return joined(
        [
            element("p", sentence(status), class_="headline"),
            facts(_facts(view)),
            *(element("p", warning, class_="notice") for warning in _warnings(status)),
            element("p", _ROUND, class_="faint"),
        ]
    )


def sentence(status: FederationStatus) -> str:
    """Return one sentence on the run, without anything that time alone changes."""
    version, delivered, needed = status.version, status.delivered, status.needed
    if status.finished:
        return f"The run is finished: version {version} is its last."
    if status.paused:
        return f"The run is paused after version {version}: nobody trains until it is resumed."
    opened = f"Round {version + 1} of {status.rounds}"
    awaited = of_part(status, "awaited")
    if not any(member.part in ("awaited", "delivered", "excused", "not drawn") for member in status.members):
        return f"{opened} waits for the first hospitals: at least {needed} are needed, and none is online."
    here = f"{delivered} {'update is' if delivered == 1 else 'updates are'} here"
    if awaited:
        return f"{opened}: {here}, and the round waits for {named(awaited, 3)}."
    if delivered < needed:
        return f"{opened}: {here} of at least {needed}, and nobody who is online has one to send."
    return f"{opened}: {here}, and it is about to close."


def of_part(status: FederationStatus, *parts: str) -> list[MemberStatus]:
    """Return the members whose part in the open round this is."""
    return [member for member in status.members if member.part in parts]


def named(members: Sequence[MemberStatus], most: int = _NAMED) -> str:
    """Return the members' names, of many the first."""
    names = [member.site for member in members[:most]]
    if (more := len(members) - most) > 0:
        return f"{', '.join(names)} and {more} more"
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + "".join(names[-1:])


def _facts(view: View) -> list[tuple[str, Child]]:
    status = view.status
    is_open = not status.finished and not status.paused
    awaited = of_part(status, "awaited")
    left_out = of_part(status, "excused", "quarantined", "unable", "away")
    limit: Child = None
    if is_open and view.first_delivery is None:
        limit = f"{duration(view.timeout_seconds)} from the round's first update on"
    elif is_open and view.first_delivery is not None:
        ends = view.first_delivery + view.timeout_seconds
        limit = joined([moment(ends), f", {duration(view.timeout_seconds)} after the first update"])
    return [
        ("State", state_badge(status)),
        ("Versions made", f"{status.version} of {status.rounds}"),
        ("Updates here", f"{status.delivered}, at least {status.needed} needed" if is_open else None),
        ("Waited for", _awaited(awaited, is_open)),
        ("Not waited for", _left_out(left_out)),
        ("Time limit", limit),
        ("Members", f"{len(status.members)}, {len(status.members) - len(of_part(status, 'away'))} online"),
        ("First update of this round", _ago(view.first_delivery) if is_open else None),
        ("Run begun", status.begun),
    ]


def state_badge(status: FederationStatus) -> Html:
    """Return the run's state as a badge."""
    if status.finished:
        return badge("good", "finished")
    return badge("waiting", "paused") if status.paused else badge("good", "training")


def _ago(at: float | None) -> Child:
    return None if at is None else moment(at, ago=True)


def _awaited(awaited: Sequence[MemberStatus], is_open: bool) -> Child:
    if not is_open or not awaited:
        return None
    why = "it trains, or its update is on the way" if len(awaited) == 1 else "they train, or send"
    return f"{named(awaited)}; {why}"


def _left_out(members: Sequence[MemberStatus]) -> Child:
    if not members:
        return None
    if len(members) > _NAMED:
        return f"{len(members)}: see the members"
    return "; ".join(f"{one.site}: {one.reason or one.part}" for one in members)


def _warnings(status: FederationStatus) -> list[str]:
    floods = [
        f"too many {flood.kind} of {flood.site or 'strangers'}: {flood.dropped} dropped"
        for flood in status.floods
    ]
    return [*status.warnings, *floods]
