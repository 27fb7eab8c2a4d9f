"""Versions on the terminal, and as JSON."""

from datetime import datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from fedmedclip.edge_client.versions.records import VersionRecord
from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.visible import visible

_WIDTH = 160
"""Of what no person reads on a terminal: nothing is cut."""


def show_versions(state: Path, *, as_json: bool) -> None:
    """Print what is kept in a site's state folder, newest first."""
    versions = Versions(state)
    versions.look()
    records, faults = versions.listing(), versions.faults()
    if as_json:
        listed = [_named(record) | {"fault": faults.get(record.name)} for record in records]
        print(msgspec.json.format(msgspec.json.encode({"versions": listed}), indent=2).decode())
        return
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    if not records:
        console.print(f"{visible(state)} has no version yet", soft_wrap=True)
        return
    console.print(_table(records, faults))
    for record in records:
        if record.verdict in ("set aside", "left"):
            name = record.called(records[-1])
            console.print(f"{name} {record.verdict}: {visible(record.reason)}", soft_wrap=True)
    for fault in faults.values():
        console.print(visible(fault), style="yellow", soft_wrap=True)


def show_change(active: VersionRecord, *, as_json: bool) -> None:
    """Print which version answers from now on."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(_named(active)), indent=2).decode())
    else:
        print(f"version {active.version} of run {active.run} answers now: {visible(active.reason)}")


def _named(record: VersionRecord) -> dict[str, object]:
    found: dict[str, object] = msgspec.to_builtins(record)
    return {"name": record.name} | found


def _table(records: list[VersionRecord], faults: dict[str, str]) -> Table:
    split = records[-1].split
    several_runs = len({record.run for record in records}) > 1
    table = Table()
    table.add_column("")
    for heading in (
        "version",
        *(["run"] if several_runs else []),
        "made",
        "images",
        "balanced",
        "zero-shot",
        "Brier",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for record in reversed(records):
        voters = {} if record.figures is None else record.figures.voters
        ensemble, zero_shot = voters.get("ensemble"), voters.get("zero_shot")
        # Of another validation split: not to be compared with the others.
        other = "" if record.split == split else "*"
        table.add_row(
            "active" if record.active else "",
            str(record.version),
            *([str(record.run) if record.run else "-"] if several_runs else []),
            datetime.fromtimestamp(record.made_at).strftime("%Y-%m-%d %H:%M"),
            "-" if record.figures is None else str(record.figures.images.get("validation", 0)),
            "-" if ensemble is None else f"{ensemble.balanced_accuracy:.3f}{other}",
            "-" if zero_shot is None else f"{zero_shot.balanced_accuracy:.3f}{other}",
            "-" if ensemble is None else f"{ensemble.brier:.3f}{other}",
            record.verdict + (", damaged" if record.name in faults else ""),
        )
    if any(record.split != split for record in records):
        table.caption = "* on another validation split than the newest"
    return table
