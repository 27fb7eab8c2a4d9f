"""TOML as text: parsed, or refused with the line that is wrong."""

import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedmedclip.protocol.configuration.words import name_in_words, shown
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.text_files import read_text_file

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
# What the parser says, and what a person wants to hear.
_REASONS = {
    r"Cannot overwrite a value": "this was given before",
    r"Cannot declare .* twice": "this table was begun before",
    r"Cannot (mutate|redefine) .*": "this table was begun before",
    r"Invalid value": "not a value; text needs quotes",
    r"Unescaped '\\' in a string": r"a \ in double quotes; write paths with / or in 'single quotes'",
    r"Invalid hex value": r"a \ in double quotes; write paths with / or in 'single quotes'",
    r"Unterminated string|Expected \"'\"": "the quotes are not closed",
    r"Expected '=' after a key in a key/value pair": "expected KEY = VALUE",
    r"Illegal character '\\n'": "the quotes are not closed on this line",
}
_LINE_SHOWN = 60
# In one line. The parser takes minutes for a key of many thousand parts.
_MOST_DOTS = 200


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return what a TOML file holds; `what` is what messages call it.

    Raises InvalidInputError with one line: when the file cannot be read, with the line and column where it is
    not TOML, and for numbers that no setting can have (NaN, integers beyond 64 bits).
    """
    return parse_toml(read_text_file(path, what), f"{what} {path}")


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return what a TOML text holds; raises InvalidInputError as `read_toml` does, after `where`."""
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise InvalidInputError(f"{where}: lists or tables are nested too deeply")
    try:
        content = tomllib.loads(text)
        for name, number in _numbers(content):
            if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:
                raise InvalidInputError(f"{where}: {name} is {shown(number)}, beyond 64 bits")
            if math.isnan(number):
                raise InvalidInputError(f"{where}: {name} is nan, which is no number")
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(_explained(text, where, str(error))) from error
    except RecursionError:
        raise InvalidInputError(f"{where}: lists or tables are nested too deeply") from None
    except ValueError as error:
        # Of a number with thousands of digits, which Python does not convert.
        raise InvalidInputError(f"{where}: it holds a number with too many digits") from error
    return content


def _explained(text: str, where: str, message: str) -> str:
    lines = text.replace("\r\n", "\n").split("\n")
    place = _PLACE.search(message)
    reason = _PLACE.sub("", message)
    for pattern, words in _REASONS.items():
        if re.fullmatch(pattern, reason):
            reason = words
    if place is None:
        return f"{where}: {reason}"
    if place[1] is None:
        number = max((i for i, line in enumerate(lines, 1) if line.strip()), default=1)
        return f"{where}, line {number}, the last: {reason}: {_excerpt(lines[number - 1], 1)}"
    number, column = int(place[1]), int(place[2])
    return f"{where}, line {number}, column {column}: {reason}: {_excerpt(lines[number - 1], column)}"


def _excerpt(line: str, column: int) -> str:
    """Return a line as a person can see it, of a long one the part around the column."""
    start = max(0, min(column - 1 - _LINE_SHOWN // 2, len(line) - _LINE_SHOWN))
    end = start + _LINE_SHOWN
    return f"{'...' if start else ''}{name_in_words(line[start:end])}{'...' if end < len(line) else ''}"


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, int | float]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _numbers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif isinstance(value, int | float):
        yield name, value
