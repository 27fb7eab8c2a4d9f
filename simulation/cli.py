"""`fedmedclip demo`."""

import os
from pathlib import Path
from typing import Annotated

import typer


def demo_command(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of sites, each a folder of classes, with optional global_test/ and classes.toml. "
            "Default: generated phantoms."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="CLIP to export, as for `fedmedclip export`. Default: a small one.")
    ] = None,
    pretrained: Annotated[str | None, typer.Option(help="Tag or path of its weights.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Use this bundle instead of exporting a model.")] = None,
    method: Annotated[str, typer.Option(help="How the heads train.")] = "fedmedclip",
    rounds: Annotated[int, typer.Option(min=1, help="Number of rounds.")] = 10,
    broker: Annotated[
        str, typer.Option(help="embedded, mosquitto (started for the demo), or HOST:PORT of a running one.")
    ] = "embedded",
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Where everything is written; an earlier demo there is replaced.")
    ] = Path("demo-output"),
) -> None:
    """Run a whole federation on this machine: export, broker, aggregator, sites, rounds, offline predictions.

    Every part is the real command in a process of its own; its log and its state lie in the output folder.
    """
    # Read when numpy is imported: on few cores, threads for tiny products only wait for each other.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from rich.console import Console

    from protocol.console import stop_cleanly_when_asked
    from protocol.errors import InvalidInputError
    from simulation.demo import DemoSettings, run_demo

    if bundle is not None and (model is not None or pretrained is not None):
        raise InvalidInputError("give either --bundle or --model with --pretrained, not both")
    stop_cleanly_when_asked()
    settings = DemoSettings(out, data, model, pretrained, bundle, method, rounds, broker, seed)
    console = Console()
    try:
        run_demo(settings, console)
    except KeyboardInterrupt:
        console.print(f"stopped; what there is so far lies in {out}")
        raise
