"""`fedmedclip aggregator` and `fedmedclip control`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        help="TOML configuration; `fedmedclip init aggregator` writes one with every setting.",
        callback=checked("--config", "file", "`fedmedclip init aggregator` writes an example"),
    ),
]

aggregator_app = typer.Typer(invoke_without_command=True)
_DATABASE = "aggregator.db"

control_app = typer.Typer(no_args_is_help=True, help="Steer the run of an aggregator while it goes on.")


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
    log_to_terminal(verbose)
    run_aggregator(config, once=once, new_run=new_run, from_newest=from_newest, insecure=insecure)


@aggregator_app.command("backup")
def backup_command(
    to: Annotated[Path, typer.Argument(help="New folder for the copy. It holds the signing key.")],
    config: ConfigOption,
) -> None:
    """Copy state, key and roster while the aggregator runs, or not."""
    from fedmedclip.aggregator.enrolment.backup import files_of, held_still
    from fedmedclip.aggregator.store import Store
    from fedmedclip.protocol.backup import back_up

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
    print(f"{visible(to)}: {', '.join([_DATABASE, *files])}")


@aggregator_app.command("restore")
def restore_command(
    backup: Annotated[Path, typer.Argument(help="Folder that `aggregator backup` wrote.")],
    config: ConfigOption,
) -> None:
    """Put a backup in the place of the state. Rounds that it lacks come back from the sites.

    A roster that is longer than the backup's stays, so that no revocation is forgotten.
    """
    from fedmedclip.aggregator.enrolment.backup import files_to_restore
    from fedmedclip.protocol.backup import restore

    state = _state_of(config)
    files, kept = files_to_restore(config, backup)
    aside = restore(state, backup, _DATABASE, files)
    print(visible(f"restored {state}" + ("" if aside is None else f"; what was there is in {aside}")))
    if kept:
        print(kept)


@control_app.command("status")
def status_command(
    config: ConfigOption,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Say how the run stands: who has delivered, who is waited for, since when, and who is not, and why."""
    import msgspec

    from fedmedclip.aggregator.control import read_status
    from fedmedclip.aggregator.status_table import print_status

    status = read_status(config)
    if as_json:
        print(msgspec.json.encode(status).decode())
    else:
        print_status(status)


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
) -> None:
    """Write the shared head for a clinic that never trained: predict, evaluate and deploy take the file.

    The aggregator may run meanwhile. A private head is not in it: those are at the sites only.
    """
    from fedmedclip.aggregator.chosen_version import chosen_version
    from fedmedclip.aggregator.shared_head_file import write_shared_head

    chosen = None if version is None else chosen_version(config, version)
    print(write_shared_head(config, output, chosen))


@control_app.command("versions")
def versions_command(
    config: ConfigOption,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Say how good each version is, as far as sites share it: mean, worst site, and which is the best."""
    import msgspec

    from fedmedclip.aggregator.versions_table import print_figures, read_figures

    figures = read_figures(config)
    if as_json:
        print(msgspec.json.encode(figures).decode())
    else:
        print_figures(figures)


@control_app.command("pause")
def pause_command(config: ConfigOption) -> None:
    """No round closes, and no site trains, until it is resumed."""
    from fedmedclip.aggregator.control import Pause, give

    print(visible(give(config, Pause())))


@control_app.command("resume")
def resume_command(config: ConfigOption) -> None:
    """Go on after a pause."""
    from fedmedclip.aggregator.control import Resume, give

    print(visible(give(config, Resume())))


@control_app.command("end")
def end_command(config: ConfigOption) -> None:
    """Let the newest version be the last."""
    from fedmedclip.aggregator.control import End, give

    print(visible(give(config, End())))


@control_app.command("add-rounds")
def add_rounds_command(
    number: Annotated[int, typer.Argument(min=1, max=1_000_000, help="How many more.")], config: ConfigOption
) -> None:
    """Add rounds to the run, also to one that is over."""
    from fedmedclip.aggregator.control import AddRounds, give

    print(visible(give(config, AddRounds(number))))


@control_app.command("leave-out")
def leave_out_command(
    site: Annotated[str, typer.Argument(help="Name of a member.")], config: ConfigOption
) -> None:
    """Do not wait for a site in the open round; what it delivers still counts."""
    from fedmedclip.aggregator.control import LeaveOut, give

    print(visible(give(config, LeaveOut(site))))


@control_app.command("quarantine")
def quarantine_command(
    site: Annotated[str, typer.Argument(help="Name of a member.")],
    config: ConfigOption,
    reason: Annotated[
        str, typer.Option(help="Why, in a few words: the site reads it, and `status` shows it.")
    ] = "",
) -> None:
    """Let a site not count: no round waits for it, and its updates are refused until it is released.

    It stays a member and follows the heads.
    """
    from fedmedclip.aggregator.control import PutInQuarantine, give

    print(visible(give(config, PutInQuarantine(site, reason))))


@control_app.command("release")
def release_command(
    site: Annotated[str, typer.Argument(help="Name of a member in quarantine.")], config: ConfigOption
) -> None:
    """Let a site count again."""
    from fedmedclip.aggregator.control import Release, give

    print(visible(give(config, Release(site))))


@control_app.command("rollback")
def rollback_command(
    version: Annotated[
        str,
        typer.Argument(
            metavar="NUMBER|best", help="Version to go back to, or the one that sites say is the best."
        ),
    ],
    config: ConfigOption,
) -> None:
    """Go on from the head of an earlier version; every site follows."""
    from fedmedclip.aggregator.chosen_version import chosen_version
    from fedmedclip.aggregator.control import RollBack, give

    print(visible(give(config, RollBack(chosen_version(config, version)))))


def _state_of(config: Path) -> Path:
    from fedmedclip.aggregator.configuration import AggregatorConfiguration
    from fedmedclip.protocol.configuration import beside, read_configuration

    return beside(config, read_configuration(config, AggregatorConfiguration).federation.state)
