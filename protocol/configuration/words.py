"""Values and types in words that a person who never saw Python understands."""

from typing import Any

from msgspec import inspect

from fedmedclip.protocol.visible import visible

_LONGEST = 60
_KINDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number with a point",
    list: "a list",
}


def shown(value: Any) -> str:
    """Return a value as it stands in a TOML file, shortened, with control characters visible."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, int):
        return hex(value)[:_LONGEST] + "..." if abs(value) >> 256 else str(value)
    if isinstance(value, list):
        # Not the whole of a large or deeply nested list.
        items = ", ".join(shown(item) if not isinstance(item, list) else "[...]" for item in value[:3])
        return f"[{items}{', ...' if len(value) > 3 else ''}]"
    text = value if isinstance(value, str) else str(value)
    text = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return f'"{visible(text)}"' if isinstance(value, str) else visible(text)


def name_in_words(name: str) -> str:
    """Return the name of a setting in quotes, as `shown` would show it."""
    return f"'{shown(name)[1:-1]}'"


def value_in_words(value: Any) -> str:
    """Return a value with what it is: `"ten" (text)`."""
    if isinstance(value, bool | dict):
        return shown(value)
    return f"{shown(value)} ({_KINDS.get(type(value), 'a date or time')})"


def type_in_words(wanted: inspect.Type) -> str:
    """Return what values a type has, such as "a whole number from 1 to 1000000"."""
    match wanted:
        case inspect.Metadata(type=inner, extra_json_schema=schema):
            words = type_in_words(inner)
            described = (schema or {}).get("description")
            if described is None:
                return words
            # A pattern is for machines; its description stands for it.
            return described if getattr(inner, "pattern", None) else f"{words} ({described})"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            noun = "a whole number" if isinstance(wanted, inspect.IntType) else "a number"
            return noun + _range(wanted)
        case inspect.StrType(pattern=pattern, max_length=most):
            limit = f" of at most {most} characters" if most is not None else ""
            return f"text{limit}" + (f" like {pattern}" if pattern else "")
        case inspect.LiteralType(values=values):
            return " or ".join(shown(value) for value in values)
        case inspect.UnionType(types=types):
            return ", or ".join(type_in_words(t) for t in types if not isinstance(t, inspect.NoneType))
        case inspect.DictType() | inspect.StructType():
            return "a table"
        case inspect.ListType() | inspect.VarTupleType():
            return f"a list{_length(wanted)}, each {type_in_words(wanted.item_type)}"
    return "a value of another kind"


def description_of(wanted: inspect.Type) -> str | None:
    """Return the description in a type's annotation, None without one."""
    if isinstance(wanted, inspect.Metadata):
        described: str | None = (wanted.extra_json_schema or {}).get("description")
        return described
    return None


def _range(wanted: inspect.IntType | inspect.FloatType) -> str:
    if wanted.ge is not None and wanted.le is not None:
        return f" from {wanted.ge:g} to {_number(wanted.le)}"
    limits = {
        "of at least": wanted.ge, "above": wanted.gt, "of at most": wanted.le, "below": wanted.lt,
    }  # fmt: skip
    words = [f"{name} {_number(limit)}" for name, limit in limits.items() if limit is not None]
    return f" {' and '.join(words)}" if words else ""


def _number(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _length(wanted: inspect.ListType | inspect.VarTupleType) -> str:
    if wanted.min_length is not None and wanted.min_length == wanted.max_length:
        return f" of {wanted.min_length}"
    return f" of at least {wanted.min_length}" if wanted.min_length else ""
