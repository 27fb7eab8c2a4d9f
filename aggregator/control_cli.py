"""`fedmedclip control`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

if TYPE_CHECKING:
    from fedmedclip.aggregator.commands import Command

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        help="TOML configuration; `fedmedclip init aggregator` writes one with every setting.",
        callback=checked("--config", "file", "`fedmedclip init aggregator` writes an example"),
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object, for programs: `command`, `answer`, `done`, `failed`.")
]
SiteArgument = Annotated[str, typer.Argument(help="Name of a member.")]

control_app = typer.Typer(
    no_args_is_help=True,
    help="Steer the run of an aggregator while it goes on. Each command is recorded with who gave it.",
    epilog="Exit codes: 0 done, or kept until the aggregator runs (`done` is false then); 2 refused.",
)


def _give(config: Path, command: "Command", as_json: bool) -> None:
    """Give a command and print its answer."""
    import msgspec

    from fedmedclip.aggregator.control import LATER, give
    from fedmedclip.protocol.errors import InvalidInputError

    def said(answer: str, *, failed: bool) -> str:
        done = not failed and answer != LATER
        found = {"command": msgspec.to_builtins(command), "answer": answer, "done": done, "failed": failed}
        return msgspec.json.encode(found).decode()

    try:
        answer = give(config, command)
    except InvalidInputError as error:
        if as_json:
            print(said(str(error), failed=True))
        raise
    print(said(answer, failed=False) if as_json else visible(answer))


@control_app.command("pause")
def pause_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """No round closes, and no site trains, until it is resumed."""
    from fedmedclip.aggregator.commands import Pause

    _give(config, Pause(), as_json)


@control_app.command("resume")
def resume_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Go on after a pause."""
    from fedmedclip.aggregator.commands import Resume

    _give(config, Resume(), as_json)


@control_app.command("end")
def end_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """End now: let the newest version be the last."""
    from fedmedclip.aggregator.commands import End

    _give(config, End(), as_json)


@control_app.command("add-rounds")
def add_rounds_command(
    number: Annotated[int, typer.Argument(min=1, max=1_000_000, help="How many more.")],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Add rounds to the run, also to one that is over."""
    from fedmedclip.aggregator.commands import AddRounds

    _give(config, AddRounds(number), as_json)


@control_app.command("deadline")
def deadline_command(
    seconds: Annotated[
        float, typer.Argument(min=1, max=31_536_000, help="From a round's first update until it closes.")
    ],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Give the open round and later ones a longer or shorter time limit.

    It holds over restarts, until `round_timeout_seconds` is edited in the configuration.
    """
    from fedmedclip.aggregator.commands import Deadline

    _give(config, Deadline(seconds), as_json)


@control_app.command("leave-out")
def leave_out_command(site: SiteArgument, config: ConfigOption, as_json: JsonOption = False) -> None:
    """Do not wait for a site in the open round; what it delivers in time still counts."""
    from fedmedclip.aggregator.commands import LeaveOut

    _give(config, LeaveOut(site), as_json)


@control_app.command("drop")
def drop_command(site: SiteArgument, config: ConfigOption, as_json: JsonOption = False) -> None:
    """Drop a site from the open round: what it has delivered, or delivers, for it does not count.

    In the next round it takes part again. To keep it out for longer: quarantine.
    """
    from fedmedclip.aggregator.commands import Drop

    _give(config, Drop(site), as_json)


@control_app.command("quarantine")
def quarantine_command(
    site: SiteArgument,
    config: ConfigOption,
    reason: Annotated[
        str, typer.Option(help="Why, in a few words: the site reads it, and `status` shows it.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Let a site not count: no round waits for it, and its updates are refused until it is released.

    It stays a member and follows the heads.
    """
    from fedmedclip.aggregator.commands import PutInQuarantine

    _give(config, PutInQuarantine(site, reason), as_json)


@control_app.command("release")
def release_command(
    site: Annotated[str, typer.Argument(help="Name of a member in quarantine.")],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Let a site count again."""
    from fedmedclip.aggregator.commands import Release

    _give(config, Release(site), as_json)


@control_app.command("rollback")
def rollback_command(
    version: Annotated[
        str,
        typer.Argument(
            metavar="NUMBER|best", help="Version to go back to, or the one that sites say is the best."
        ),
    ],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Go on from the head of an earlier version: it becomes a new version, which every site follows."""
    from fedmedclip.aggregator.chosen_version import chosen_version
    from fedmedclip.aggregator.commands import RollBack

    _give(config, RollBack(chosen_version(config, version)), as_json)


@control_app.command("versions")
def versions_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Say how good each version is, as far as sites share it: mean, worst site, and which is the best."""
    import msgspec

    from fedmedclip.aggregator.versions_table import print_figures, read_figures

    figures = read_figures(config)
    if as_json:
        print(msgspec.json.encode(figures).decode())
    else:
        print_figures(figures)


@control_app.command("next-run")
def next_run_command(
    config: ConfigOption,
    from_newest: Annotated[
        bool, typer.Option("--from-newest", help="Start from what fits of the newest head.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Folder of another bundle: another encoder, other classes.",
            callback=checked("--bundle", "folder"),
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Rounds of the run.")] = None,
    method: Annotated[str | None, typer.Option(help="Method of the run.")] = None,
    as_json: JsonOption = False,
) -> None:
    """End the run that is under way and begin the next, with the configuration as it is on disk now.

    Members, keys and roster stay; the sites follow by themselves, with another bundle once it lies where
    their site.toml says. What is given here takes the place of the setting until that is edited.
    """
    from fedmedclip.aggregator.commands import NextRun

    folder = None if bundle is None else str(bundle.resolve())
    _give(config, NextRun(from_newest, folder, rounds, method), as_json)


@control_app.command("log")
def log_command(
    config: ConfigOption,
    verify: Annotated[
        bool, typer.Option("--verify", help="Look whether a record was changed or is missing; code 1 if so.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each record.")] = False,
) -> None:
    """Show every command that was carried out or refused: when, by whom, what, and what came of it.

    The records are chained by their hashes and signed with the aggregator's key.
    """
    from datetime import UTC, datetime

    import msgspec

    from fedmedclip.aggregator.control import read_command_log, verify_command_log

    if verify:
        verdict = verify_command_log(config)
        if as_json:
            print(msgspec.json.encode(verdict).decode())
        else:
            for fault in verdict.faults:
                print(visible(fault))
            state = "faults were found" if verdict.faults else "whole"
            print(f"{verdict.records} records, {state}; the end's hash is {verdict.end}")
        raise typer.Exit(1 if verdict.faults else 0)
    for record in read_command_log(config):
        if as_json:
            print(msgspec.json.encode(record).decode())
            continue
        when = datetime.fromtimestamp(record.done_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        answer = f"refused: {record.answer}" if record.failed else record.answer
        print(visible(f"{record.number}  {when}  {record.by or '?'}  {record.command}  {answer}"))
