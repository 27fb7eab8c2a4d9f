"""The doctor's findings for a person."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedmedclip.edge_client.doctor.finding import Finding, State

_COLOURS = {State.OK: "green", State.NOTE: "yellow", State.BAD: "red"}


def print_table(findings: list[Finding], fit: bool) -> None:
    """Print a row per finding, and the verdict."""
    table = Table("", "", "what was found", box=None, pad_edge=False)
    for finding in findings:
        words = escape(finding.words)
        if finding.advice:
            words += f"\n[bold]-> {escape(finding.advice)}[/bold]"
        colour = _COLOURS[finding.state]
        table.add_row(finding.name, f"[{colour}]{finding.state.value}[/{colour}]", words)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "This box is fit." if fit else "This box is not fit: see what is marked bad.", soft_wrap=True
    )
