"""Log lines for programs: one JSON object each, with an event's identifier that stays."""

import json
import logging
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fedmedclip.protocol.log_events import LogEvents
from fedmedclip.protocol.visible import visible


class JsonFormatter(logging.Formatter):
    """Writes time (RFC 3339 with zone), level, logger, event, message, and the message's values as fields.

    What a line says is what it says as text, and no more. A call that logs with values that do not fit its
    template costs its own words, not the line.
    """

    def __init__(self, events: LogEvents) -> None:
        super().__init__()
        self._events = events

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its end."""
        event, values = self._events.of(record)
        fields = {name: _plain(value) for name, value in values.items()}
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            "message": _message(record, fields),
            "fields": fields,
        }
        if record.exc_info and record.exc_info[0] is not None:
            error = self.formatException(record.exc_info)
            line["traceback"] = [visible(row) for row in error.splitlines()]
        return json.dumps(line, ensure_ascii=False)


def _message(record: logging.LogRecord, fields: Mapping[str, object]) -> str:
    try:
        return visible(record.getMessage())
    # Whatever the text of a value raises: the log must not end what it tells of.
    except Exception:
        return " ".join(map(visible, (_plain(record.msg), *fields.values())))


def _plain(value: object) -> object:
    """Return a value that JSON has: numbers that are finite, true and false, nothing, or text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    try:
        return visible(value)
    except Exception:
        return f"a {type(value).__name__} that cannot be shown"
