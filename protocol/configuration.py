"""TOML configuration files, decoded into typed structures with errors that name file, place and value."""

from pathlib import Path
from typing import TypeVar

import msgspec

from fedmedclip.protocol.errors import InvalidInputError

Configuration = TypeVar("Configuration")


def read_configuration(path: Path, structure: type[Configuration]) -> Configuration:
    """Decode the TOML file at `path`. Raises InvalidInputError with one line when it cannot be used."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=structure)
    except OSError as error:
        raise InvalidInputError(f"cannot read configuration {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidInputError) as error:
        raise InvalidInputError(f"configuration {path}: {error}") from error


def beside(configuration_file: Path, path: str) -> Path:
    """Return `path` as meant in a configuration file: relative to the folder that the file is in."""
    return configuration_file.resolve().parent / Path(path).expanduser()
