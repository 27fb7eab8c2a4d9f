"""`fedmedclip serve`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import JsonOption, LogFormatOption
from fedmedclip.protocol.console import LogFormat
from fedmedclip.protocol.exit_codes import ExitCode
from fedmedclip.protocol.paths import checked

serve_app = typer.Typer(invoke_without_command=True)
ConfigOption = Annotated[
    Path,
    typer.Option("--config", help="The service's configuration.", callback=checked("--config", "file")),
]


@serve_app.callback()
def serve_command(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML configuration; `fedmedclip init serve` writes one with every setting.",
            callback=checked("--config", "file", "`fedmedclip init serve` writes an example"),
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Answer images as they come, by DICOM, HTTP and a watch folder: one process, the encoder opened once.

    What came in is on disk before it is acknowledged, and is answered once. Stop it (Ctrl-C) or kill it at
    any moment, start it again with the same configuration, and it goes on where it was.
    """
    if context.invoked_subcommand is not None:
        return
    from fedmedclip.edge_client.serving.service import run_serve
    from fedmedclip.protocol.console import log_to_terminal
    from fedmedclip.protocol.errors import InvalidInputError

    if config is None:
        raise InvalidInputError("Missing option '--config' (see fedmedclip serve --help)")
    log_to_terminal(verbose, log_format)
    run_serve(config)


@serve_app.command("status")
def status_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Say what waits, what was put aside and why, whether the service runs or not."""
    from fedmedclip.edge_client.serving.looking import status_of

    found = status_of(config)
    _print(found, found.lines(), as_json)


@serve_app.command("drift")
def drift_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Say whether this month's images and answers differ from the training data, and what to do then."""
    from fedmedclip.edge_client.serving.looking import drift_of

    found = drift_of(config)
    _print(found, found.lines(), as_json)


@serve_app.command("health")
def health_command(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Say whether the service of a configuration answers, on the machine where it runs.

    Exit code 0: it answers; 1: it does not.
    """
    from fedmedclip.edge_client.serving.health import service_fault
    from fedmedclip.protocol.visible import visible

    fault = service_fault(config)
    if as_json:
        from fedmedclip.protocol.json_output import print_json

        print_json({"answers": fault is None, "fault": fault})
    else:
        print("it answers" if fault is None else f"it does not answer: {visible(fault)}")
    raise typer.Exit(ExitCode.FINE if fault is None else ExitCode.ATTENTION)


def _print(found: object, lines: list[str], as_json: bool) -> None:
    import msgspec

    from fedmedclip.protocol.visible import visible

    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    for line in lines:
        print(visible(line))
