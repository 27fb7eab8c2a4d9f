"""A configuration file from its path: decoded, and the paths in it looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from msgspec import inspect

from fedmedclip.protocol.configuration.convert import convert
from fedmedclip.protocol.configuration.syntax import parse_toml
from fedmedclip.protocol.configuration.words import shown
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import PathKind, path_fault
from fedmedclip.protocol.text_files import read_text_file

Configuration = TypeVar("Configuration")

_PATH_KINDS = frozenset(get_args(PathKind))


@dataclass(frozen=True)
class PathFault:
    """A path in a configuration file that cannot be used; `line` says so in full."""

    table: str
    setting: str
    line: str


def read_configuration(path: Path, structure: type[Configuration]) -> Configuration:
    """Decode the TOML file at `path`. Raises InvalidInputError with one line when it cannot be used."""
    where = f"configuration {path}"
    text = read_text_file(path, "configuration")
    if not text.strip():
        raise InvalidInputError(f"{where} is empty; `fedmedclip init` writes one to begin with")
    return convert(parse_toml(text, where), structure, where)


def beside(configuration_file: Path, path: str) -> Path:
    """Return `path` as meant in a configuration file: relative to the folder that the file is in."""
    return configuration_file.resolve().parent / Path(path).expanduser()


def require_paths(configuration_file: Path, configuration: Any) -> None:
    """Raise InvalidInputError for the first path of a configuration that does not name what it should."""
    for fault in path_faults(configuration_file, configuration):
        raise InvalidInputError(fault.line)


def path_faults(configuration_file: Path, configuration: Any) -> Iterator[PathFault]:
    """Yield the faults of all settings whose annotation says what kind of path they are.

    That is `Meta(extra={"path": KIND})`, with a `PathKind`, in the structure of a table.
    """
    tables = inspect.type_info(type(configuration))
    assert isinstance(tables, inspect.StructType)
    for table in tables.fields:
        found = getattr(configuration, table.name)
        kinds = table.type.types if isinstance(table.type, inspect.UnionType) else (table.type,)
        structure = next((kind for kind in kinds if isinstance(kind, inspect.StructType)), None)
        if structure is None or found is None:
            continue
        for setting in structure.fields:
            kind = _path_kind(setting.type)
            value = getattr(found, setting.name)
            if kind is None or value is None:
                continue
            full = beside(configuration_file, value)
            if fault := path_fault(full, kind):
                place = "" if str(full) in fault else f" ({full})"
                name = f"{configuration_file}: [{table.name}] {setting.name} = {shown(value)}"
                yield PathFault(table.name, setting.name, f"{name}: {fault}{place}")


def _path_kind(wanted: inspect.Type) -> PathKind | None:
    if isinstance(wanted, inspect.UnionType):
        return next(filter(None, map(_path_kind, wanted.types)), None)
    if isinstance(wanted, inspect.Metadata):
        kind: Any = (wanted.extra or {}).get("path")
        return kind if kind in _PATH_KINDS else None
    return None
