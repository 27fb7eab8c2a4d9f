"""The `fedmedclip` command: gathers the sub-commands of each room.

The rooms' `cli` modules import nothing heavy at the top, so that `fedmedclip --help` stays quick and
never imports PyTorch.
"""

import os
import sys

import typer

from export.cli import export_command
from protocol.errors import FedMedClipError

app = typer.Typer(
    name="fedmedclip",
    help="Federated training of small heads on a frozen CLIP, over thin links.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# A callback keeps the sub-commands' names even while there is only one of them.
app.callback()(lambda: None)
app.command("export")(export_command)


def main() -> None:
    """Run the command line; a FedMedClipError becomes one line on standard error and exit code 2."""
    try:
        app()
    except FedMedClipError as error:
        print(f"fedmedclip: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        where = f" {error.filename}" if error.filename else ""
        print(f"fedmedclip:{where}: {os.strerror(error.errno)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
