"""The status of a federation for a person."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedmedclip.aggregator.status import FederationStatus, MemberStatus
from fedmedclip.protocol.progress import duration
from fedmedclip.protocol.visible import visible

_COLOURS = {"delivered": "green", "awaited": "yellow", "awaits consent": "yellow"} | dict.fromkeys(
    ("excused", "quarantined", "away", "unable", "refused"), "red"
)


def print_status(status: FederationStatus) -> None:
    """Print where the run stands in one line, and a row per member."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(escape(headline(status)))
    judged = any(member.last_round for member in status.members)
    private = any(member.privacy for member in status.members)
    columns = ["site", "part in the open round", "heard", "version", "software", "refused messages"]
    table = Table(*columns, *(["epsilon spent"] if private else []), *(["rule"] if judged else []), box=None)
    for member in status.members:
        part = member.part if not member.reason else f"{member.part}: {member.reason}"
        colour = _COLOURS.get(member.part, "default")
        version = "" if member.version is None else str(member.version)
        refused = str(member.refused_messages or "")
        table.add_row(
            member.site,
            f"[{colour}]{escape(visible(part))}[/]",
            _heard(member),
            version,
            escape(visible(member.software)),
            refused,
            *([_spent(member)] if private else []),
            *([escape(visible(member.last_round))] if judged else []),
        )
    if status.members:
        console.print(table)
    for warning in status.warnings:
        console.print(f"[yellow]{escape(visible(warning))}[/]")
    for flood in status.floods:
        who = flood.site or "strangers"
        console.print(f"[red]too many {flood.kind} of {escape(who)}: {flood.dropped} dropped[/]")


def headline(status: FederationStatus) -> str:
    """Return one sentence on the run."""
    where = f"version {status.version} of {status.rounds}"
    if status.finished:
        rest = "finished"
    elif status.paused:
        rest = "paused"
    else:
        rest = f"round {status.version + 1} has {status.delivered} of at least {status.needed} updates"
        if status.round_seconds is not None:
            rest += f", the first {duration(status.round_seconds)} ago"
    if not status.running:
        rest = "finished" if status.finished else "the aggregator does not run"
    asked = status.privacy
    terms = f", epsilon {asked.epsilon:g} and delta {asked.delta:g} per {asked.unit}" if asked else ""
    return f"{status.federation}, run of {status.begun} ({status.method}{terms}): {where}; {rest}"


def _spent(member: MemberStatus) -> str:
    spent = member.privacy
    return "" if spent is None else f"{spent.spent:.3g} of {spent.epsilon:g} (delta {spent.delta:g})"


def _heard(member: MemberStatus) -> str:
    if member.seconds is None:
        return "" if member.part in ("unknown", "quarantined") else "not yet"
    return f"{'gone ' if member.part == 'away' else ''}{duration(member.seconds)} ago"
