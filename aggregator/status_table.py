"""The status of a federation for a person."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedmedclip.aggregator.federation_status import FederationStatus, MemberStatus
from fedmedclip.protocol.progress import duration
from fedmedclip.protocol.visible import visible

_COLOURS = {
    "delivered": "green",
    "awaited": "yellow",
    "awaits consent": "yellow",
    "here": "green",
} | dict.fromkeys(("excused", "quarantined", "away", "unable", "refused"), "red")
_VERSIONS_SHOWN = 10


def print_status(status: FederationStatus) -> None:
    """Print where the run stands in one line, and a row per member."""
    Console(highlight=False, soft_wrap=True).print(in_table(status))


def in_table(status: FederationStatus) -> RenderableType:
    """Return what `print_status` prints."""
    lines = [*_below(status)]
    return Group(
        Text(headline(status)),
        *([_members(status)] if status.members else []),
        *([_versions(status)] if status.versions else []),
        *(Text.from_markup(line) for line in lines),
    )


def _members(status: FederationStatus) -> Table:
    judged = any(member.last_round for member in status.members)
    private = any(member.privacy for member in status.members)
    columns = ["site", "part in the open round", "heard", "version", "software", "refused messages"]
    table = Table(*columns, *(["epsilon spent"] if private else []), *(["rule"] if judged else []), box=None)
    for member in status.members:
        part = member.part if not member.reason else f"{member.part}: {member.reason}"
        if member.late_seconds is not None:
            part = f"late: waited for {duration(member.late_seconds)}"
        colour = _COLOURS.get(member.part, "default")
        version = "" if member.version is None else str(member.version)
        table.add_row(
            member.site,
            f"[{colour}]{escape(visible(part))}[/]",
            _heard(member),
            version,
            escape(visible(member.software)),
            escape(visible(_refused(member.refused_messages, member.last_refusal))),
            *([_spent(member)] if private else []),
            *([escape(visible(member.last_round))] if judged else []),
        )
    return table


def _versions(status: FederationStatus) -> Table:
    table = Table("version", "sites", "accuracy", "worst site", box=None)
    for found in status.versions[-_VERSIONS_SHOWN:]:
        mean = "" if found.weighted_mean is None else f"{found.weighted_mean:.3f}"
        worst = "" if found.worst is None else f"{found.worst:.3f} ({found.worst_site or '?'})"
        best = f"{found.version} (best)" if found.best else str(found.version)
        table.add_row(best, str(found.sites), mean, escape(visible(worst)))
    return table


def _below(status: FederationStatus) -> Iterator[str]:
    """Yield the lines under the tables, in rich's markup."""
    if status.sent_bytes or status.received_bytes:
        line = f"bytes sent {status.sent_bytes:,}, received {status.received_bytes:,}"
        of_round = [count for count in status.traffic if count.round_number == status.version + 1]
        for count in of_round:
            line += f"; since version {status.version} {count.sent_bytes:,} and {count.received_bytes:,}"
        yield line
    for certificate in status.certificates[:1]:
        ends = datetime.fromtimestamp(certificate.ends, UTC).strftime("%Y-%m-%d")
        yield escape(f"the first certificate to end is that of {visible(certificate.whose)}, on {ends}")
    if status.strangers_refused:
        refused = _refused(status.strangers_refused, status.strangers_last_refusal)
        yield escape(visible(f"messages of strangers that were refused: {refused}"))
    if status.signed_by:
        yield escape(visible(f"signed by {status.signed_by}"))
    for what in status.unknown:
        yield f"[dim]not known from here: {escape(visible(what))}[/]"
    for sentence in status.attention:
        yield f"[yellow]{escape(visible(sentence))}[/]"


def headline(status: FederationStatus) -> str:
    """Return one sentence on the run."""
    where = f"version {status.version} of {status.rounds}"
    if status.finished:
        rest = "finished"
    elif status.paused:
        rest = "paused"
    elif status.source == "broker":
        rest = f"round {status.version + 1} is open"
    else:
        rest = f"round {status.version + 1} has {status.delivered} of at least {status.needed} updates"
        if status.round_seconds is not None:
            rest += f", the first {duration(status.round_seconds)} ago"
    if not status.running and status.source != "broker":
        rest = "finished" if status.finished else "the aggregator does not run"
        rest += ", paused" if status.paused and not status.finished else ""
    asked = status.privacy
    terms = f", epsilon {asked.epsilon:g} and delta {asked.delta:g} per {asked.unit}" if asked else ""
    return f"{status.federation}, run of {status.begun} ({status.method}{terms}): {where}; {rest}"


def _refused(count: int, last: str) -> str:
    return "" if count == 0 else f"{count}, the last: {last}" if last else str(count)


def _spent(member: MemberStatus) -> str:
    spent = member.privacy
    return "" if spent is None else f"{spent.spent:.3g} of {spent.epsilon:g} (delta {spent.delta:g})"


def _heard(member: MemberStatus) -> str:
    if member.seconds is None:
        return "" if member.part in ("unknown", "quarantined", "here", "away") else "not yet"
    return f"{'gone ' if member.part == 'away' else ''}{duration(member.seconds)} ago"
