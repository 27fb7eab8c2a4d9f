"""Decoded TOML into a msgspec structure, with errors for people, derived from the structure alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import inspect

from fedmedclip.protocol.configuration.words import (
    description_of,
    name_in_words,
    shown,
    type_in_words,
    value_in_words,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import did_you_mean, near_name

Structure = TypeVar("Structure")

_MOST_NAMED = 5


@dataclass(frozen=True)
class _Place:
    """Where a value stands.

    `where` begins every message; `table` is the table's name, "" for the whole file, which has the `tables`.
    `owners` tells which of them have a setting of some name.
    """

    where: str
    table: str
    tables: list[str]
    owners: Mapping[str, list[str]]

    def error(self, words: str) -> InvalidInputError:
        return InvalidInputError(f"{self.where}: {f'[{self.table}] ' if self.table else ''}{words}")

    def inside(self, table: str) -> "_Place":
        return replace(self, table=f"{self.table}.{table}" if self.table else table)


def convert(values: Mapping[str, Any], structure: type[Structure], where: str, table: str = "") -> Structure:
    """Return the structure that a TOML file, or one `table` of it, describes.

    Raises InvalidInputError with one line that begins with `where`: for settings and tables that there are
    not, that are missing, or whose values are of another type or out of range; and for what the structure
    itself refuses.
    """
    root = inspect.type_info(structure)
    assert isinstance(root, inspect.StructType)
    found = {field.encode_name: _table_in(field.type) for field in root.fields}
    tables = [name for name, kind in found.items() if isinstance(kind, inspect.StructType | inspect.DictType)]
    owners: dict[str, list[str]] = {}
    for field in root.fields:
        if isinstance(kind := found[field.encode_name], inspect.StructType):
            for inner in kind.fields:
                owners.setdefault(inner.encode_name, []).append(field.encode_name)
    _check(values, root, _Place(where, table, tables, owners))
    return msgspec.convert(dict(values), structure)


def _check(values: Mapping[str, Any], structure: inspect.StructType, place: _Place) -> None:
    """Look at one table: unknown names, missing ones, then each value; last, what the structure refuses."""
    fields = {field.encode_name: field for field in structure.fields}
    if unknown := [name for name in values if name not in fields]:
        raise place.error(_unknown(unknown, values, structure, place))
    if missing := [name for name, field in fields.items() if field.required and name not in values]:
        raise place.error("lacks " + " and ".join(_missing(fields[name]) for name in missing))
    hints = get_type_hints(structure.cls, include_extras=True)
    for name, value in values.items():
        field_type = _table_in(fields[name].type) if isinstance(value, dict) else fields[name].type
        if isinstance(value, dict) and isinstance(field_type, inspect.StructType):
            _check(value, field_type, place.inside(name))
        elif isinstance(value, dict) and isinstance(field_type, inspect.DictType):
            for key, inner in value.items():
                _check_value(
                    shown(key)[1:-1],
                    inner,
                    field_type.value_type,
                    _value_hint(hints[name]),
                    place.inside(name),
                )
            _check_value(name, value, field_type, hints[name], place)
        else:
            _check_value(name, value, field_type, hints[name], place)
    try:
        msgspec.convert(dict(values), structure.cls)
    except (InvalidInputError, msgspec.ValidationError) as error:
        raise place.error(str(error)) from error


def _check_value(name: str, value: Any, wanted: inspect.Type, hint: Any, place: _Place) -> None:
    try:
        msgspec.convert(value, hint)
    except InvalidInputError as error:
        raise place.error(f"{name}: {error}") from error
    except msgspec.ValidationError as error:
        if isinstance(wanted, inspect.StructType | inspect.DictType) and not place.table:
            if isinstance(value, dict):
                raise place.error(f"[{name}] holds too much: {error}") from error
            advice = f"; {name} is a table, begun by a line [{name}]"
            raise place.error(f"{name} is {value_in_words(value)}{advice}") from error
        near = near_name(value, _words(wanted)) if isinstance(value, str) else None
        raise place.error(
            f"{name} is {value_in_words(value)}; give {type_in_words(wanted)}"
            + (f'; did you mean "{near}"?' if near else "")
        ) from error


def _unknown(
    unknown: list[str], values: Mapping[str, Any], structure: inspect.StructType, place: _Place
) -> str:
    known = [field.encode_name for field in structure.fields]
    if place.tables and not place.table:
        tables = [name for name in unknown if isinstance(values[name], dict)]
        if tables:
            return _unknown_table(tables[0], place)
        if len(place.tables) == len(known):
            hint = _hint(unknown[0], place.tables, place)
            return f"{name_in_words(unknown[0])} stands outside of every table{hint}"
    if len(unknown) == 1:
        hint = _hint(unknown[0], known, place)
        return f"has no setting {name_in_words(unknown[0])}{hint} (known: {', '.join(known)})"
    named = []
    for name in unknown[:_MOST_NAMED]:
        hint = _hint(name, known, place).removeprefix("; ")
        named.append(name_in_words(name) + (f" ({hint})" if hint else ""))
    more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
    return f"has no settings {', '.join(named)}{more} (known: {', '.join(known)})"


def _unknown_table(name: str, place: _Place) -> str:
    near = near_name(name, place.tables)
    hint = f"; did you mean [{near}]?" if near else ""
    known = ", ".join(f"[{table}]" for table in place.tables)
    return f"there is no table [{shown(name)[1:-1]}]{hint} (known: {known})"


def _hint(name: str, known: list[str], place: _Place) -> str:
    """Return where an unknown name belongs, or the known name that is near."""
    if name in place.tables:
        return f"; [{name}] is a table of its own"
    if owners := place.owners.get(name):
        return f"; it belongs to {' or '.join(f'[{owner}]' for owner in owners)}"
    if hint := did_you_mean(name, known):
        return hint
    elsewhere = near_name(name, place.owners)
    return f"; did you mean {elsewhere!r} of [{place.owners[elsewhere][0]}]?" if elsewhere else ""


def _missing(field: inspect.Field) -> str:
    if isinstance(field.type, inspect.StructType):
        inner = ", ".join(inner.encode_name for inner in field.type.fields if inner.required)
        return f"the table [{field.encode_name}]" + (f" (with {inner})" if inner else "")
    described = description_of(field.type)
    return f"{field.encode_name!r}" + (f" ({described})" if described else "")


def _table_in(wanted: inspect.Type) -> inspect.Type:
    """Return the table among the alternatives of a type, or the type itself."""
    alternatives = wanted.types if isinstance(wanted, inspect.UnionType) else ()
    return next((inner for inner in alternatives if isinstance(inner, inspect.StructType)), wanted)


def _words(wanted: inspect.Type) -> list[str]:
    """Return the words that a type allows."""
    if isinstance(wanted, inspect.UnionType):
        return [word for inner in wanted.types for word in _words(inner)]
    return [v for v in wanted.values if isinstance(v, str)] if isinstance(wanted, inspect.LiteralType) else []


def _value_hint(hint: Any) -> Any:
    """Return the annotation of the values of an annotated dict."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return get_args(hint)[1]
