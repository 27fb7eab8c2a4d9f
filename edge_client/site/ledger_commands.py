"""`fedmedclip ledger`."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.edge_client.options import OutputCallback
from fedmedclip.edge_client.site.command_line import ConfigOption
from fedmedclip.protocol.visible import visible

if TYPE_CHECKING:
    from fedmedclip.edge_client.site.ledger_view import LedgerView

ledger_app = typer.Typer(
    no_args_is_help=True,
    help="The record of every message that left this site or came, and what shows it true.",
)
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object.")]


class DirectionName(StrEnum):
    """Which entries: what left, what came, what happened to the ledger itself."""

    OUT = "out"
    IN = "in"
    HERE = "here"


class ExportFormat(StrEnum):
    """How entries are exported."""

    CSV = "csv"
    JSON = "json"


@ledger_app.command("show")
def show_command(
    config: ConfigOption,
    last: Annotated[int, typer.Option(min=0, help="The newest so many of those chosen; 0: all.")] = 50,
    direction: Annotated[
        DirectionName | None,
        typer.Option(help="What left (out), came (in), or happened to the ledger (here)."),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Of one kind, such as Update.")] = None,
    since: Annotated[str | None, typer.Option(help="A date or moment: 2026-03-01, 2026-03-01T12:00.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what left this site and what came, while it runs or not."""
    from fedmedclip.edge_client.ledger.listing import chosen, line_for_people, moment_of
    from fedmedclip.edge_client.site.ledger_view import print_json, totals_line

    with _view(config) as view:
        entries = chosen(
            view.entries(),
            last=last or None,
            direction=None if direction is None else direction.value,
            kind=kind,
            since=None if since is None else moment_of(since),
        )
        if as_json:
            print_json({"totals": view.totals(), "entries": list(entries)})
            return
        for entry in entries:
            print(visible(line_for_people(entry)))
        print(totals_line(view.totals()))


@ledger_app.command("verify")
def verify_command(
    config: ConfigOption,
    against: Annotated[
        str | None,
        typer.Option(metavar="NUMBER:HASH", help="An entry that was noted earlier, as a report has it."),
    ] = None,
    first: Annotated[int, typer.Option("--from", min=1, help="Leave out faults of earlier entries.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Say whether the ledger is whole: nothing changed, missing, out of place, or cut off.

    Exit code 0: it is; 2: it is not, with one line that says where.
    """
    from fedmedclip.edge_client.ledger.verification import verify
    from fedmedclip.edge_client.site.ledger_view import noted_mark, print_json, verdict_line
    from fedmedclip.protocol.errors import InvalidInputError

    with _view(config) as view:
        noted = None if against is None else noted_mark(against)
        verdict = verify(view.folder, view.known, noted, first)
    if as_json:
        print_json({"whole": verdict.whole, "verdict": verdict})
        if not verdict.whole:
            raise typer.Exit(2)
        return
    if not verdict.whole:
        more = len(verdict.faults) - 1
        raise InvalidInputError(
            f"{view.folder}: {verdict.faults[0]}" + (f"; and {more} more, see --json" if more else "")
        )
    print(visible(verdict_line(verdict)))


@ledger_app.command("export")
def export_command(
    file: Annotated[Path, typer.Argument(help="New file.", callback=OutputCallback)],
    config: ConfigOption,
    form: Annotated[ExportFormat, typer.Option("--format", help="csv or json.")] = ExportFormat.CSV,
) -> None:
    """Write all entries to a file, for a spreadsheet or another program."""
    from fedmedclip.edge_client.ledger.listing import export

    with _view(config) as view:
        count = export(view.entries(), file, form.value)
    print(visible(f"wrote {count} entries to {file}"))


@ledger_app.command("replay")
def replay_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Make again what was sent, and compare its digests with the ledger's.

    An update comes from what the site keeps of its making, for the newest `replay_rounds` of them.
    Exit code 0: nothing differs; 2: something does.
    """
    from fedmedclip.edge_client.ledger.replay import replay_lines
    from fedmedclip.edge_client.site.ledger_view import print_json
    from fedmedclip.protocol.errors import InvalidInputError

    with _view(config) as view:
        done = view.replay()
    if done is None:
        raise InvalidInputError(f"{view.folder.parent} has no site.key or site.db: nothing can be made again")
    if as_json:
        print_json({"differs": done.differs, "replay": done})
    else:
        for line in replay_lines(done):
            print(visible(line))
    if done.differs:
        raise typer.Exit(2)


@ledger_app.command("report")
def report_command(
    file: Annotated[Path, typer.Argument(help="New HTML file.", callback=OutputCallback)],
    config: ConfigOption,
) -> None:
    """Write a printable report for the data protection officer, as one HTML file."""
    from fedmedclip.protocol.new_files import write_new_file

    with _view(config) as view:
        report = view.report()
    write_new_file(file, report, private=True)
    print(visible(f"wrote {file}"))


@contextmanager
def _view(config: Path) -> "Iterator[LedgerView]":
    from fedmedclip.edge_client.site.ledger_view import LedgerView

    view = LedgerView(config)
    try:
        yield view
    finally:
        view.close()
