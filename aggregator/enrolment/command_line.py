"""What the commands of `fedmedclip federation` share: options, the folder that is meant, what is printed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

if TYPE_CHECKING:
    from fedmedclip.aggregator.enrolment.folder import FederationFolder

FolderOption = Annotated[
    Path,
    typer.Option(
        "--folder", "-f", help="The federation's folder, of `federation init`.",
        callback=checked("--folder", "folder", "`fedmedclip federation init` makes one"),
    ),
]  # fmt: skip
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File whose first line is the certificate authority's passphrase; else the environment variable "
        "FEDMEDCLIP_CA_PASSPHRASE, or the terminal.",
        callback=checked("--passphrase-file", "file"),
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
ByOption = Annotated[
    str | None,
    typer.Option("--by", help="Who decides, as it stands in the roster. Default: your login name."),
]
SiteArgument = Annotated[str, typer.Argument(help="Name of the site.")]
SamplesOption = Annotated[
    int | None,
    typer.Option(min=1, max=1_000_000_000, help="The site's updates weigh as so many images at most."),
]
HERE = Path()


def federation_in(folder: Path) -> "FederationFolder":
    """Return the federation of a folder. Raises InvalidInputError when there is none."""
    from fedmedclip.aggregator.enrolment.folder import open_folder

    return open_folder(folder)


def passphrase_for(folder: "FederationFolder", file: Path | None) -> str:
    """Return the passphrase of a federation's certificate authority, asked for on a terminal.

    Raises InvalidInputError when it is not given.
    """
    from fedmedclip.aggregator.enrolment.passphrase import required_passphrase

    return required_passphrase(file, folder.passphrase_file)


def with_folder(folder: Path) -> str:
    """Return the option by which a further command means the same folder; empty where none is needed."""
    return "" if folder == HERE else f" --folder {folder}"


def say(*lines: str) -> None:
    """Print lines for a person."""
    for line in lines:
        print(visible(line))


def tell(as_json: bool, facts: Mapping[str, object], *lines: str) -> None:
    """Print lines for a person, or for a program the facts that they tell."""
    if as_json:
        from fedmedclip.protocol.json_output import print_json

        print_json(facts)
    else:
        say(*lines)


def login_name() -> str:
    """Return who calls, as the system has it; `coordinator` where it has no name for them."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run as a number without a name.
        return "coordinator"
