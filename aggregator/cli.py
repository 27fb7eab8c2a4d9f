"""`fedmedclip aggregator`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.paths import checked


def aggregator_command(
    config: Annotated[
        Path,
        typer.Option(
            help="TOML configuration; `fedmedclip init aggregator` writes one with every setting.",
            callback=checked("--config", "file", "`fedmedclip init aggregator` writes an example"),
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="End when the federation is over.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Coordinate a federation: collect updates, aggregate rounds, broadcast the global head.

    Its state lies in the configured folder: stop it (Ctrl-C) or kill it at any moment, start it again with
    the same configuration, and it goes on where it was.
    """
    from fedmedclip.aggregator.service import run_aggregator
    from fedmedclip.protocol.console import log_to_terminal, stop_cleanly_when_asked

    log_to_terminal(verbose)
    stop_cleanly_when_asked()
    run_aggregator(config, once=once)
