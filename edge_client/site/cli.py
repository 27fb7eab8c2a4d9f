"""`fedmedclip site`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import JsonOption, LogFormatOption
from fedmedclip.protocol.console import LogFormat
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

site_app = typer.Typer(invoke_without_command=True)
ConfigOption = Annotated[
    Path,
    typer.Option(
        "--config",
        help="TOML configuration; `fedmedclip init site` writes one with every setting.",
        callback=checked("--config", "file", "`fedmedclip init site` writes an example"),
    ),
]
_DATABASE, _KEY = "site.db", "site.key"
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
    """Copy keys, certificate, split, heads, ledger and what is owed while the site runs, or not. Features can
    be computed again.
    """
    from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER, segments_in
    from fedmedclip.edge_client.site.state import SiteState
    from fedmedclip.protocol.backup import back_up
    from fedmedclip.protocol.json_output import print_json

    state_folder = _state_of(config)

    def copy(path: Path) -> None:
        state = SiteState(state_folder / "site.db")
        try:
            state.copy_to(path)
        finally:
            state.close()

    files = {
        name: state_folder / name for name in (_KEY, *_MEMBERSHIP, *_SPLIT) if (state_folder / name).exists()
    }
    files |= {path.name: path for _, path in segments_in(state_folder / LEDGER_FOLDER)}
    back_up(state_folder, to, _DATABASE, files, copy)
    if as_json:
        print_json({"backup": to, "files": [_DATABASE, *files]})
    else:
        print(f"{visible(to)}: {', '.join((_DATABASE, *files))}")


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
    from fedmedclip.protocol.backup import restore
    from fedmedclip.protocol.json_output import print_json

    state_folder = _state_of(config)
    # A certificate, roster or split that is in place is as new as the backup's, or newer.
    lacking = [
        name
        for name in (*_MEMBERSHIP, *_SPLIT)
        if (backup / name).exists() and not (state_folder / name).exists()
    ]
    files = {name: state_folder / name for name in (_KEY, *lacking)}
    ledger = state_folder / LEDGER_FOLDER
    if newest_number(backup) > newest_number(ledger):
        ledger.mkdir(mode=0o700, parents=True, exist_ok=True)
        files |= {path.name: ledger / path.name for _, path in segments_in(backup)}
    aside = restore(state_folder, backup, _DATABASE, files)
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
        state = SiteState(state_folder / _DATABASE)
        ledger = MessageLedger(state_folder / LEDGER_FOLDER, state.ledger_end)
        ledger.note("Restored", "the state is that of a backup; what left after it may have no entry")
        ledger.close()
        state.close()


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
    path = _state_of(config) / _DATABASE
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


def _state_of(config: Path) -> Path:
    from fedmedclip.edge_client.site.configuration import SiteConfiguration
    from fedmedclip.protocol.configuration import beside, read_configuration

    return beside(config, read_configuration(config, SiteConfiguration).site.state)
