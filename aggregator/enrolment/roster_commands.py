"""`fedmedclip federation rotate-key`, `roster`: the key that signs the roster, and what it has signed."""

import time
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.aggregator.enrolment.command_line import (
    HERE,
    FolderOption,
    JsonOption,
    federation_in,
    tell,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import checked


def rotate_key_command(folder: FolderOption = HERE, as_json: JsonOption = False) -> None:
    """Sign with a new key from now on. The old one signs that, and sites follow by themselves."""
    from fedmedclip.aggregator.enrolment.membership import rotate_key

    opened = federation_in(folder)
    roster, bundle = rotate_key(opened, time.time())
    lines = [f"the coordinator's key is {roster.coordinator_key.hex()} now; back up {opened.key_file}"]
    if bundle is not None:
        lines.append(f"bundle {bundle} is signed with it; give new sites that copy")
    facts = {"coordinator_key": roster.coordinator_key.hex(), "file": opened.key_file, "bundle": bundle}
    tell(as_json, facts, *lines)


def roster_command(
    file: Annotated[
        Path | None,
        typer.Argument(help="A roster's file. Default: the federation's.", callback=checked("FILE", "file")),
    ] = None,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
    adopt: Annotated[
        bool,
        typer.Option("--adopt", help="Take FILE over, a hospital's copy: after an old backup was restored."),
    ] = False,
) -> None:
    """Verify a roster and print its records."""
    from fedmedclip.aggregator.enrolment.roster_file import adopt as take_over
    from fedmedclip.aggregator.enrolment.roster_file import read_roster_file
    from fedmedclip.aggregator.enrolment.tables import print_roster

    if adopt and file is None:
        raise InvalidInputError("--adopt takes over a file: fedmedclip federation roster FILE --adopt")
    roster = federation_in(folder).roster() if file is None else read_roster_file(file)
    if not adopt:
        print_roster(roster, as_json=as_json)
        return
    ours, aside = take_over(federation_in(folder), roster)
    facts = {"records": len(roster.records), "records_before": len(ours.records), "set_aside": aside}
    tell(
        as_json,
        facts,
        f"the roster has {len(roster.records)} records now, {len(ours.records)} were here, which are kept in "
        f"{aside}; an aggregator that runs has to be started again",
    )
