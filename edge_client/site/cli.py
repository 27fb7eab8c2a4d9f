"""`fedmedclip site`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import JsonOption, LogFormatOption
from fedmedclip.edge_client.site.command_line import DATABASE, ConfigOption, state_of
from fedmedclip.edge_client.site.plan_commands import approve_command, plan_command, refuse_command
from fedmedclip.protocol.console import LogFormat
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

site_app = typer.Typer(invoke_without_command=True)
VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="Its number, or RUN:VERSION (`site versions`).")
]
site_app.command("plan")(plan_command)
site_app.command("approve")(approve_command)
site_app.command("refuse")(refuse_command)
_KEY = "site.key"
# What `fedmedclip join` and the federation's roster have put beside them.
_MEMBERSHIP = ("tls.pem", "ca.pem", "roster")
# Which images are tested on, and under which names their groups stand there.
_SPLIT = ("split.csv", "groups.key")


@site_app.callback()
def site_command(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML configuration; `fedmedclip init site` writes one with every setting.",
            callback=checked("--config", "file", "`fedmedclip init site` writes an example"),
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the run is over.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Take part in a federation as one hospital: features once, then rounds of local training.

    Its state lies in the configured folder: stop it (Ctrl-C) or kill it at any moment, start it again with
    the same configuration, and it goes on where it was. Images and the private head never leave.
    """
    if context.invoked_subcommand is not None:
        return
    from fedmedclip.edge_client.site.service import run_site
    from fedmedclip.protocol.console import log_to_terminal
    from fedmedclip.protocol.errors import InvalidInputError

    if config is None:
        raise InvalidInputError("Missing option '--config' (see fedmedclip site --help)")
    log_to_terminal(verbose, log_format)
    run_site(config, once=once)


@site_app.command("backup")
def backup_command(
    to: Annotated[Path, typer.Argument(help="New folder for the copy. It holds key and private head.")],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Copy keys, certificate, split, versions of the heads, ledger and what is owed, while the site runs or
    not. Features can be computed again.
    """
    from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER, segments_in
    from fedmedclip.edge_client.site.state import SiteState
    from fedmedclip.edge_client.versions.versions import Versions
    from fedmedclip.protocol.backup import back_up
    from fedmedclip.protocol.json_output import print_json

    state_folder = state_of(config)

    def copy(path: Path) -> None:
        state = SiteState(state_folder / DATABASE)
        try:
            state.copy_to(path)
        finally:
            state.close()

    files = {
        name: state_folder / name for name in (_KEY, *_MEMBERSHIP, *_SPLIT) if (state_folder / name).exists()
    }
    files |= {path.name: path for _, path in segments_in(state_folder / LEDGER_FOLDER)}
    with Versions(state_folder).files() as versions:
        back_up(state_folder, to, DATABASE, files | versions, copy)
    if as_json:
        print_json({"backup": to, "files": [DATABASE, *files, *versions]})
        return
    kept = [] if not versions else [f"heads and {len(versions)} files of versions"]
    print(f"{visible(to)}: {', '.join((DATABASE, *files, *kept))}")


@site_app.command("restore")
def restore_command(
    backup: Annotated[Path, typer.Argument(help="Folder that `site backup` wrote.")],
    config: ConfigOption,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the state. Versions that it lacks come from the aggregator.

    The longer ledger stays: the one that is in place, or the backup's.
    """
    from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER, newest_number, segments_in
    from fedmedclip.edge_client.versions.folder import FOLDER, HEADS
    from fedmedclip.protocol.backup import restore
    from fedmedclip.protocol.json_output import print_json

    state_folder = state_of(config)
    # A certificate, roster or split that is in place is as new as the backup's, or newer; so are versions.
    lacking = [
        name
        for name in (*_MEMBERSHIP, *_SPLIT, HEADS)
        if (backup / name).exists() and not (state_folder / name).exists()
    ]
    if not (state_folder / FOLDER).exists():
        lacking += [f"{FOLDER}/{path.name}" for path in sorted((backup / FOLDER).glob("*"))]
    files = {name: state_folder / name for name in (_KEY, *lacking)}
    ledger = state_folder / LEDGER_FOLDER
    if newest_number(backup) > newest_number(ledger):
        files |= {path.name: ledger / path.name for _, path in segments_in(backup)}
    aside = restore(state_folder, backup, DATABASE, files)
    _note_restored(state_folder)
    if as_json:
        print_json({"restored": state_folder, "set_aside": aside})
        return
    print(visible(f"restored {state_folder}" + ("" if aside is None else f"; what was there is in {aside}")))


def _note_restored(state_folder: Path) -> None:
    """Say in the ledger that the state is one of before: of what left since, it may lack the entries."""
    from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
    from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER
    from fedmedclip.edge_client.site.state import SiteState
    from fedmedclip.protocol.state_folder import claim_state_folder

    with claim_state_folder(state_folder):
        state = SiteState(state_folder / DATABASE)
        ledger = MessageLedger(state_folder / LEDGER_FOLDER, state.ledger_end)
        ledger.note("Restored", "the state is that of a backup; what left after it may have no entry")
        ledger.close()
        state.close()


@site_app.command("versions")
def versions_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Show the versions that are kept here, what each is worth, and which one answers, running or not."""
    from fedmedclip.edge_client.versions.table import show_versions

    show_versions(state_of(config), as_json=as_json)


@site_app.command("activate")
def activate_command(name: VersionArgument, config: ConfigOption, as_json: JsonOption = False) -> None:
    """Let a version answer that is kept here, with its private head, while the site runs, or not."""
    from fedmedclip.edge_client.versions.table import show_change
    from fedmedclip.edge_client.versions.versions import Versions

    show_change(Versions(state_of(config)).activate(name, "command line"), as_json=as_json)


@site_app.command("rollback")
def rollback_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Let the version answer that did before the active one; once more, the one before that."""
    from fedmedclip.edge_client.versions.table import show_change
    from fedmedclip.edge_client.versions.versions import Versions

    show_change(Versions(state_of(config)).rollback("command line"), as_json=as_json)


@site_app.command("privacy")
def privacy_command(
    config: ConfigOption,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, with every release.")] = False,
) -> None:
    """Show what this site's updates have cost of its privacy, in each run and in all, running or not."""
    import msgspec

    from fedmedclip.edge_client.site.configuration import SiteConfiguration
    from fedmedclip.edge_client.site.spending import spending_lines, spending_of
    from fedmedclip.edge_client.site.state import SiteState
    from fedmedclip.protocol.configuration import read_configuration
    from fedmedclip.protocol.errors import InvalidInputError

    demanded = read_configuration(config, SiteConfiguration).privacy
    path = state_of(config) / DATABASE
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist: this site has taken part in no run yet")
    state = SiteState(path)
    try:
        spending = spending_of(state.releases, demanded)
    finally:
        state.close()
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(spending), indent=2).decode())
    else:
        print("\n".join(spending_lines(spending)))
