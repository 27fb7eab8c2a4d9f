"""`fedmedclip sbom`: what this installation is made of, as CycloneDX."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.paths import checked


def sbom_command(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write here instead of to standard output.",
            callback=checked("--output", "output file"),
        ),
    ] = None,
) -> None:
    """Write a bill of materials: this distribution, and what of it is installed here, as CycloneDX 1.6 JSON.

    Versions, licences and hashes are those of the packages that this very Python imports, extras included
    where they are installed.
    """
    import sys

    import msgspec

    from fedmedclip.bill_of_materials import bill_of_materials
    from fedmedclip.protocol.new_files import write_new_file

    encoded = msgspec.json.format(msgspec.json.encode(bill_of_materials("fedmedclip-edge")), indent=2) + b"\n"
    if output is None:
        sys.stdout.write(encoded.decode())
    else:
        write_new_file(output, encoded)
