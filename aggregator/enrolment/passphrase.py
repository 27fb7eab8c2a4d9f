"""Where the certificate authority's passphrase comes from: a file, the environment, or who sits there."""

import os
import sys
from pathlib import Path

from fedmedclip.aggregator.authority.certificate_authority import SHORTEST_PASSPHRASE
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.private_files import refuse_readers
from fedmedclip.protocol.text_files import read_text_file

VARIABLE = "FEDMEDCLIP_CA_PASSPHRASE"


def read_passphrase_file(path: Path, what: str = "--passphrase-file") -> str:
    """Return the first line of a file. Raises InvalidInputError, also when others can read it."""
    refuse_readers(path, what)
    passphrase = read_text_file(path, what).split("\n", 1)[0].removesuffix("\r")
    if not passphrase:
        raise InvalidInputError(f"the first line of {what} {path} is empty")
    return passphrase


def find_passphrase(file: Path | None, configured: Path | None = None) -> str | None:
    """Return the passphrase of the given file, the environment, or the configured file; None without one.

    Raises InvalidInputError for a file that cannot be used.
    """
    if file is not None:
        return read_passphrase_file(file)
    if found := os.environ.get(VARIABLE):
        return found
    return None if configured is None else read_passphrase_file(configured, "authority_passphrase_file")


def required_passphrase(file: Path | None, configured: Path | None = None, *, new: bool = False) -> str:
    """Return the passphrase, asked for on the terminal where need be; a `new` one twice.

    Raises InvalidInputError where there is none, and nobody to ask.
    """
    found = find_passphrase(file, configured)
    if found is not None:
        return found
    if not is_interactive():
        raise InvalidInputError(
            "the key of the certificate authority needs its passphrase: give --passphrase-file FILE, or the "
            f"environment variable {VARIABLE}"
        )
    import typer

    words = "Passphrase of the certificate authority"
    if not new:
        return str(typer.prompt(words, hide_input=True))
    return str(
        typer.prompt(
            f"{words}, new, at least {SHORTEST_PASSPHRASE} characters",
            hide_input=True,
            confirmation_prompt=True,
        )
    )


def is_interactive() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
