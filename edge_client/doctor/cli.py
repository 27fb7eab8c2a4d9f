"""`fedmedclip doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.exit_codes import ExitCode
from fedmedclip.protocol.paths import checked


def doctor_command(
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            help="Measure with this bundle, and run its self-test.",
            callback=checked("--bundle", "bundle"),
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A site's TOML: also look at its data, broker and certificates.",
            callback=checked("--config", "file", "`fedmedclip init site` writes an example"),
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Say in plain words whether this box is fit for its work, and what to do where it is not.

    Exit code 0: fit; 1: not fit; 2: bundle or configuration cannot be used. Nothing is changed.
    """
    from fedmedclip.edge_client.doctor.examination import examine
    from fedmedclip.edge_client.doctor.finding import State

    findings = examine(bundle, config)
    fit = all(finding.state is not State.BAD for finding in findings)
    if json:
        import msgspec

        report = msgspec.json.encode({"fit": fit, "findings": findings})
        print(msgspec.json.format(report, indent=2).decode())
    else:
        from fedmedclip.edge_client.doctor.table import print_table

        print_table(findings, fit)
    raise typer.Exit(ExitCode.FINE if fit else ExitCode.ATTENTION)
