"""The reference of configuration files, from the structures that decode them.

Names, types, defaults and bounds are the structures'. What a setting means is said by its comment in the
example file in `deploy/`, or else by those parts of the structure's docstring that name it.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import msgspec
from msgspec import inspect as kinds

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.enrolment.folder import FederationSettings
from fedmedclip.aggregator.enrolment.settings import FoundingFile
from fedmedclip.aggregator.observer import ObserverConfiguration
from fedmedclip.edge_client.learning import settings as training
from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.link.settings import LinkSettings

PAGE = "reference/configuration.md"
EXAMPLES = Path(__file__).resolve().parents[2] / "deploy"
FILES: Mapping[str, type[msgspec.Struct]] = {
    "aggregator.toml": AggregatorConfiguration,
    "site.toml": SiteConfiguration,
    "serve.toml": ServeConfiguration,
    "observer.toml": ObserverConfiguration,
}
# Without tables: what each setting means stands in the structure's docstring.
FLAT_FILES: Mapping[str, type[msgspec.Struct]] = {
    "federation.toml": FederationSettings,
    "federation init --config": FoundingFile,
}
# A table whose settings are checked where the method trains, not where the file is read.
TRAINING = "training"


def configuration_page() -> str:
    """Return the page: each file, table and setting with type, default, bounds and meaning."""
    parts = [
        "# Configuration",
        "Files are TOML. An unknown table or setting is an error. Paths are relative to the file that names "
        "them. Commented examples lie in the folder `deploy/` of the repository.",
    ]
    shared = "aggregator.toml"
    for file, table, structure in tables():
        if structure is LinkSettings and file != shared:
            parts.append(f"### `[{table}]` in `{file}` {{ #{_anchor(file, table)} }}")
            parts.append(f"The same settings as [in `{shared}`](#{_anchor(shared, table)}).")
            continue
        if f"## `{file}`" not in parts:
            parts.append(f"## `{file}`")
        parts += _table(file, table, structure)
    for file, structure in FLAT_FILES.items():
        parts += [f"## `{file}`", _rows(structure, {})]
    return "\n\n".join(parts) + "\n"


def tables() -> Iterator[tuple[str, str, type[msgspec.Struct] | None]]:
    """Yield file, table and the structure of its settings; None for a table with keys of one's own."""
    for file, whole in FILES.items():
        for field in msgspec.structs.fields(whole):
            if field.encode_name == TRAINING:
                yield file, TRAINING, training.TrainingSettings
            else:
                # A table that may be left out is one of its settings, or None.
                every = get_args(field.type) or (field.type,)
                inner = (
                    kind for kind in every if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
                )
                yield file, field.encode_name, next(inner, None)


def _table(file: str, table: str, structure: type[msgspec.Struct] | None) -> list[str]:
    heading = f"### `[{table}]` {{ #{_anchor(file, table)} }}"
    if structure is None:
        return [heading, f"{'; '.join(_clauses(FILES[file], table))}."]
    comments = _comments((EXAMPLES / file).read_text(encoding="utf-8")).get(table, {})
    return [heading, _rows(structure, comments)]


def _rows(structure: type[msgspec.Struct], comments: Mapping[str, str]) -> str:
    rows = ["| setting | type | default | range | meaning |", "|---|---|---|---|---|"]
    for field in msgspec.structs.fields(structure):
        name = field.encode_name
        kind, bounds = _kind(kinds.type_info(field.type))
        bounds = bounds or _checked_bounds(structure, name)
        meaning = comments.get(name) or "; ".join(_clauses(structure, name))
        cells = (f"`{name}`", kind, _default(field), bounds, meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _anchor(file: str, table: str) -> str:
    return f"{file.removesuffix('.toml')}-{table}"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "none"
    return f"`{msgspec.json.encode(value).decode()}`"


def _kind(kind: kinds.Type) -> tuple[str, str]:
    """Return a type and its bounds in words."""
    if isinstance(kind, kinds.Metadata):
        return _kind(kind.type)
    if isinstance(kind, kinds.UnionType):
        inner = [_kind(part) for part in kind.types if not isinstance(part, kinds.NoneType)]
        return " or ".join(words for words, _ in inner), "; ".join(bounds for _, bounds in inner if bounds)
    if isinstance(kind, kinds.LiteralType):
        return "text", " or ".join(f'`"{value}"`' for value in kind.values)
    if isinstance(kind, kinds.IntType | kinds.FloatType):
        words = "whole number" if isinstance(kind, kinds.IntType) else "number"
        bounds = [
            f"{sign} {_number(bound)}"
            for sign, bound in (("from", kind.ge), ("above", kind.gt), ("to", kind.le), ("below", kind.lt))
            if bound is not None
        ]
        return words, " ".join(bounds)
    if isinstance(kind, kinds.StrType):
        return "text", f"`{kind.pattern}`" if kind.pattern else ""
    if isinstance(kind, kinds.BoolType):
        return "true or false", ""
    if isinstance(kind, kinds.VarTupleType | kinds.ListType):
        words, _ = _kind(kind.item_type)
        least, most = kind.min_length or 0, kind.max_length
        if most is None:
            return f"list of {words}s", f"at least {least} of them" if least else ""
        return f"list of {words}s", f"{most} of them" if least == most else f"{least} to {most} of them"
    if isinstance(kind, kinds.StructType):
        return "table", ""
    return type(kind).__name__.removesuffix("Type").lower(), ""


def _checked_bounds(structure: type[msgspec.Struct], name: str) -> str:
    """Return the bounds of a training setting, which its structure checks itself."""
    if structure is not training.TrainingSettings or name not in training._RANGES:
        return ""
    low, high = training._RANGES[name]
    return f"from {_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value}"


def _clauses(structure: type[msgspec.Struct], name: str) -> list[str]:
    """Return the parts of the docstrings of a structure and its bases that name a setting."""
    texts = [" ".join((base.__doc__ or "").split()) for base in inspect.getmro(structure)]
    clauses = [clause.strip() for text in texts for clause in re.split(r"(?<=[.;]) ", text)]
    found = [clause.rstrip(";.") for clause in clauses if f"`{name}`" in clause or f"`{name} =" in clause]
    return [f"{clause[0].upper()}{clause[1:]}" if clause[0] != "`" else clause for clause in found]


def _comments(example: str) -> dict[str, dict[str, str]]:
    """Return the comment behind each setting of an example file, by table; further lines of it included."""
    found: dict[str, dict[str, str]] = {}
    table = name = ""
    for line in example.splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            table, name = header[1], ""
        elif setting := re.match(r"(?:# )?(\w+) = .*?(?:\s#\s*(.*))?$", line):
            name = setting[1]
            found.setdefault(table, {})[name] = (setting[2] or "").strip()
        elif name and (further := re.match(r"\s{8,}#\s*(.*)$", line)):
            found[table][name] += f" {further[1].strip()}"
        else:
            name = ""
    return found
