"""The `fedmedclip` command: gathers the sub-commands of each room.

The rooms' `cli` modules import nothing heavy at the top, so that `fedmedclip --help` stays quick and never
imports PyTorch.
"""

import errno
import logging
import os
import sys
from typing import Annotated

import typer

from fedmedclip import __version__
from fedmedclip.aggregator.cli import aggregator_app
from fedmedclip.aggregator.control_cli import control_app
from fedmedclip.aggregator.enrolment.cli import federation_app
from fedmedclip.aggregator.metrics_command import metrics_command as aggregator_metrics
from fedmedclip.edge_client.adaptation.cli import EXAMPLES, adapt_command
from fedmedclip.edge_client.bundles.cli import bundle_app
from fedmedclip.edge_client.calibration.cli import calibrate_command
from fedmedclip.edge_client.cli import evaluate_command, predict_command, reference_command
from fedmedclip.edge_client.data_report.cli import data_command
from fedmedclip.edge_client.doctor.cli import doctor_command
from fedmedclip.edge_client.enrolment.cli import join_command
from fedmedclip.edge_client.explanation.cli import explain_command
from fedmedclip.edge_client.heads.cli import heads_app
from fedmedclip.edge_client.inference.deployment.cli import deploy_command
from fedmedclip.edge_client.serving.cli import serve_app
from fedmedclip.edge_client.site.cli import site_app
from fedmedclip.edge_client.site.events_command import events_command as site_events
from fedmedclip.edge_client.site.ledger_commands import ledger_app
from fedmedclip.edge_client.site.metrics_command import metrics_command as site_metrics
from fedmedclip.export.cli import export_command
from fedmedclip.init import init_app
from fedmedclip.protocol.console import (
    logs_json,
    print_what_the_terminal_lacks_as_escapes,
    stopped_by_signals,
)
from fedmedclip.protocol.errors import FedMedClipError, FullDiskError
from fedmedclip.protocol.exit_codes import ExitCode
from fedmedclip.protocol.visible import visible
from fedmedclip.sbom import sbom_command
from fedmedclip.simulation.cli import bench_app, demo_command
from fedmedclip.status import EXIT_CODES, status_command
from fedmedclip.trust import trust_command
from fedmedclip.usage import OneLineGroup

app = typer.Typer(
    name="fedmedclip",
    cls=OneLineGroup,
    help="Federated training of small heads on a frozen CLIP, over thin links.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo_command)
app.command("export")(export_command)
app.add_typer(aggregator_app, name="aggregator")
app.add_typer(control_app, name="control")
app.command("status", epilog=EXIT_CODES)(status_command)
control_app.command("status", epilog=EXIT_CODES)(status_command)
app.command("join")(join_command)
app.add_typer(federation_app, name="federation")
app.add_typer(site_app, name="site")
app.add_typer(ledger_app, name="ledger")
app.add_typer(serve_app, name="serve")
app.command("predict")(predict_command)
app.command("evaluate")(evaluate_command)
app.command("explain")(explain_command)
app.command("adapt", epilog=EXAMPLES)(adapt_command)
app.command("calibrate")(calibrate_command)
app.command("data")(data_command)
app.command("reference")(reference_command)
app.command("deploy")(deploy_command)
app.command("doctor")(doctor_command)
app.add_typer(init_app, name="init")
app.add_typer(bundle_app, name="bundle")
app.add_typer(heads_app, name="heads")
app.command("trust")(trust_command)
app.command("sbom")(sbom_command)
app.add_typer(bench_app, name="bench")
control_app.command("metrics")(aggregator_metrics)
site_app.command("events")(site_events)
site_app.command("metrics")(site_metrics)

log = logging.getLogger("fedmedclip")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"fedmedclip {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line.

    An error that a person has to mend becomes one line on standard error and exit code 2; one that may pass,
    code 75.
    """
    print_what_the_terminal_lacks_as_escapes()
    try:
        with stopped_by_signals():
            # The same name in every message, also as `python -m fedmedclip`.
            app(prog_name="fedmedclip")
    except FullDiskError as error:
        _fail(str(error), code=ExitCode.PASSING)
    except FedMedClipError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        if (extra := _extra_of(error.name)) is None:
            raise
        _fail(f"this command needs {error.name}; install it with: pip install 'fedmedclip-edge[{extra}]'")
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(f"{where}{os.strerror(error.errno)}", code=ExitCode.PASSING if full else ExitCode.MISTAKE)


def _fail(line: str, code: int = ExitCode.MISTAKE) -> None:
    shown = visible(" ".join(line.split()))
    if logs_json():
        log.error("%s (exit code %d)", shown, code)
    else:
        print(f"fedmedclip: {shown}", file=sys.stderr)
    sys.exit(code)


def _extra_of(module: str | None) -> str | None:
    extras = {
        "torch": "train",
        "open_clip": "export",
        "onnx": "deploy",
        "amqtt": "demo",
        "matplotlib": "bench",
        "scipy": "bench",
        "highdicom": "serve",
        "prometheus_client": "pages",
        "pynetdicom": "serve",
        "starlette": "pages",
        "uvicorn": "pages",
        "watchfiles": "serve",
    }
    return extras.get((module or "").split(".")[0])
