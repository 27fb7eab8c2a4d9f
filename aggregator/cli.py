"""`fedmedclip aggregator`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.aggregator.control_cli import ConfigOption
from fedmedclip.protocol.console import LOG_FORMAT_HELP, LOG_FORMAT_VARIABLE, LogFormat
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", envvar=LOG_FORMAT_VARIABLE, help=LOG_FORMAT_HELP)
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]

aggregator_app = typer.Typer(invoke_without_command=True)
_DATABASE = "aggregator.db"


@aggregator_app.callback()
def aggregator_command(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML configuration; `fedmedclip init aggregator` writes one with every setting.",
            callback=checked("--config", "file", "`fedmedclip init aggregator` writes an example"),
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the run is over.")] = False,
    page_stays: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=86_400,
            help="With --once: how long the page stays after the run while somebody looks at it.",
        ),
    ] = 2,
    new_run: Annotated[
        bool,
        typer.Option(
            "--new-run",
            help="End the run that is under way and begin the next, as configured now; the sites follow.",
        ),
    ] = False,
    from_newest: Annotated[
        bool, typer.Option("--from-newest", help="With --new-run: start from the newest head.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Also with a broker that lets in clients without a certificate."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Coordinate a federation: collect updates, aggregate rounds, broadcast the global head.

    Its state lies in the configured folder: stop it (Ctrl-C) or kill it at any moment, start it again with
    the same configuration, and it goes on where it was.
    """
    if context.invoked_subcommand is not None:
        return
    from fedmedclip.aggregator.service import run_aggregator
    from fedmedclip.protocol.console import log_to_terminal
    from fedmedclip.protocol.errors import InvalidInputError

    if config is None:
        raise InvalidInputError("Missing option '--config' (see fedmedclip aggregator --help)")
    if from_newest and not new_run:
        raise InvalidInputError("--from-newest says how a new run starts; give it with --new-run")
    log_to_terminal(verbose, log_format)
    run_aggregator(
        config,
        once=once,
        new_run=new_run,
        from_newest=from_newest,
        insecure=insecure,
        page_stays_seconds=page_stays,
    )


@aggregator_app.command("backup")
def backup_command(
    to: Annotated[Path, typer.Argument(help="New folder for the copy. It holds the signing key.")],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Copy state, key and roster while the aggregator runs, or not."""
    from fedmedclip.aggregator.enrolment.backup import files_of, held_still
    from fedmedclip.aggregator.store import Store
    from fedmedclip.protocol.backup import back_up
    from fedmedclip.protocol.json_output import print_json

    state = _state_of(config)

    def copy(path: Path) -> None:
        store = Store(state / _DATABASE)
        try:
            store.copy_to(path)
        finally:
            store.close()

    files = files_of(config)
    with held_still(config):
        back_up(state, to, _DATABASE, files, copy)
    if as_json:
        print_json({"backup": to, "files": [_DATABASE, *files]})
    else:
        print(f"{visible(to)}: {', '.join([_DATABASE, *files])}")


@aggregator_app.command("restore")
def restore_command(
    backup: Annotated[Path, typer.Argument(help="Folder that `aggregator backup` wrote.")],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the state. Rounds that it lacks come back from the sites.

    A roster that is longer than the backup's stays, so that no revocation is forgotten.
    """
    from fedmedclip.aggregator.enrolment.backup import files_to_restore
    from fedmedclip.protocol.backup import restore
    from fedmedclip.protocol.json_output import print_json

    state = _state_of(config)
    files, kept = files_to_restore(config, backup)
    aside = restore(state, backup, _DATABASE, files)
    if as_json:
        print_json({"restored": state, "set_aside": aside, "kept": kept or None})
        return
    print(visible(f"restored {state}" + ("" if aside is None else f"; what was there is in {aside}")))
    if kept:
        print(kept)


@aggregator_app.command("heads")
def heads_command(
    config: ConfigOption,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Heads file to write; one that is there is replaced.",
            callback=checked("--output", "output file"),
        ),
    ],
    version: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|best",
            help="Version of the run, or the one that sites say is the best; by default the newest.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the shared head for a clinic that never trained: predict, evaluate and deploy take the file.

    The aggregator may run meanwhile. A private head is not in it: those are at the sites only.
    """
    from fedmedclip.aggregator.chosen_version import chosen_version
    from fedmedclip.aggregator.shared_head_file import write_shared_head
    from fedmedclip.protocol.json_output import print_json

    chosen = None if version is None else chosen_version(config, version)
    written = write_shared_head(config, output, chosen)
    if as_json:
        print_json(written)
    else:
        print(visible(written.words()))


def _state_of(config: Path) -> Path:
    from fedmedclip.aggregator.configuration import AggregatorConfiguration
    from fedmedclip.protocol.configuration import beside, read_configuration

    return beside(config, read_configuration(config, AggregatorConfiguration).federation.state)
