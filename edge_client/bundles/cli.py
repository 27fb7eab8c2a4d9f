"""`fedmedclip bundle`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import SigningKeyOption
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

bundle_app = typer.Typer(
    name="bundle",
    help="Look at a bundle, check it on this machine, sign it.",
    no_args_is_help=True,
)
FolderArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder that `fedmedclip export` wrote.", metavar="BUNDLE", callback=checked("BUNDLE", "bundle")
    ),
]


@bundle_app.command("show")
def show_command(folder: FolderArgument) -> None:
    """Print what a bundle is: model, precision, classes, preprocessing, parity, hashes, signature."""
    from fedmedclip.edge_client.bundles.report import show

    _print_rows(show(folder))


@bundle_app.command("verify")
def verify_command(
    folder: FolderArgument,
    key: Annotated[
        str | None,
        typer.Option(help="The public key that must have signed it: 64 hexadecimal digits or a file."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; by default one per core.")] = None,
) -> None:
    """Check hashes and signature, and that this machine computes what the exporting machine did.

    Exit code 0: all is well; 2: it is not, and why.
    """
    from fedmedclip.edge_client.bundles.report import verify

    _print_rows(verify(folder, key, threads))


@bundle_app.command("sign")
def sign_command(
    folder: FolderArgument,
    key: SigningKeyOption = None,
) -> None:
    """Sign a bundle, so that sites can see that nobody changed it on the way; they pin the public key."""
    from fedmedclip.edge_client.bundles.report import sign

    _print_rows(sign(folder, key))


def _print_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, words in rows:
        print(f"{visible(name):<{width}}  {visible(words)}")
