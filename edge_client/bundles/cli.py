"""`fedmedclip bundle`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import JsonOption, SigningKeyOption
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

# What a program is told of it; the rest is advice.
_OF_A_SIGNATURE = ("public key", "signature")


@bundle_app.command("show")
def show_command(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Print what a bundle is: model, precision, classes, preprocessing, parity, hashes, signature."""
    from fedmedclip.edge_client.bundles.report import show, shown

    _print(shown(folder) if as_json else show(folder))


@bundle_app.command("verify")
def verify_command(
    folder: FolderArgument,
    key: Annotated[
        str | None,
        typer.Option(help="The public key that must have signed it: 64 hexadecimal digits or a file."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; by default one per core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check hashes and signature, and that this machine computes what the exporting machine did.

    Exit code 0: all is well; 2: it is not, and why.
    """
    from fedmedclip.edge_client.bundles.report import verify

    found = verify(folder, key, threads)
    _print(dict(found) if as_json else found)


@bundle_app.command("sign")
def sign_command(
    folder: FolderArgument,
    key: SigningKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle, so that sites can see that nobody changed it on the way; they pin the public key."""
    from fedmedclip.edge_client.bundles.report import sign

    done = sign(folder, key)
    _print({name: words for name, words in done if name in _OF_A_SIGNATURE} if as_json else done)


def _print(rows: "list[tuple[str, str]] | Mapping[str, object]") -> None:
    """Print rows for a person, or names and values for a program."""
    if isinstance(rows, Mapping):
        from fedmedclip.protocol.json_output import print_json

        print_json({name.replace(" ", "_").replace("-", "_"): value for name, value in rows.items()})
        return
    width = max(len(name) for name, _ in rows)
    for name, words in rows:
        print(f"{visible(name):<{width}}  {visible(words)}")
