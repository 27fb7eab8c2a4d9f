"""Which event a log line is: `log_events.toml` gives each message of ours a lasting identifier.

A line's words may be made clearer from one version to the next, and programs must not read them. So the table
knows each message by its template, the text before its values are put in, and the call that logs it need not
change. A line that is one built sentence ("%s") is known by what the call says: `extra={"event": "..."}`.
"""

import logging
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

TABLE = Path(__file__).with_name("log_events.toml")
UNLISTED = "unlisted"
"""What a line is whose template the table does not know, such as one of a method from outside."""
DEBUGGING = "debugging"
"""What every debugging line is."""

PLACE = re.compile(r"%[-#0 +]*(?:\d+)?(?:\.\d+)?[a-zA-Z]")
"""Where a template takes a value."""


class LogEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of line. `names` are of the template's values, in their order; `meaning` is for operators.

    An event that has several templates has its meaning with the first. Without a `template`, the call that
    logs it says its `id`.
    """

    id: str
    names: tuple[str, ...] = ()
    template: str = ""
    meaning: str = ""


class LogEvents:
    """Finds the event of a line."""

    def __init__(self, events: Iterable[LogEvent]) -> None:
        listed = list(events)
        self._by_template = {event.template: event for event in listed if event.template}
        self._by_id = {event.id: event for event in listed}

    def of(self, record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
        """Return a line's identifier and its values by name; those without a name are argument_1, ..."""
        said = getattr(record, "event", None)
        event = self._by_template.get(str(record.msg)) if said is None else self._by_id.get(str(said))
        values = record.args or ()
        if isinstance(values, Mapping):
            return _identifier(event, said, record), {str(name): value for name, value in values.items()}
        names = () if event is None else event.names
        named = {
            names[index] if index < len(names) else f"argument_{index + 1}": value
            for index, value in enumerate(values)
        }
        return _identifier(event, said, record), named


def _identifier(event: LogEvent | None, said: object, record: logging.LogRecord) -> str:
    if event is not None:
        return event.id
    if said is not None:
        return str(said)
    return DEBUGGING if record.levelno <= logging.DEBUG else UNLISTED


def read_log_events(path: Path = TABLE) -> list[LogEvent]:
    """Return the events of a table. Raises msgspec.ValidationError where it is not one."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return msgspec.convert(content.get("event", []), list[LogEvent])


@cache
def log_events() -> LogEvents:
    """Return the table of this software, read once."""
    return LogEvents(read_log_events())


def places(template: str) -> int:
    """Return how many values a template takes."""
    return len(PLACE.findall(template.replace("%%", "")))
