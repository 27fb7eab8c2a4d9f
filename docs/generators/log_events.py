"""The reference of log events, from their table; and what of the code's log calls the table lacks.

python -m docs.generators.log_events          says what is wrong; exit code 1 where anything is
python -m docs.generators.log_events --add    adds an entry for each new message, to be given its meaning
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from docs.generators.log_calls import LogCall, log_calls
from fedmedclip.protocol.log_events import DEBUGGING, TABLE, UNLISTED, LogEvent, places, read_log_events

PAGE = "reference/log-events.md"
_IDENTIFIER = re.compile(r"[a-z][a-z_0-9]*\.[a-z][a-z_0-9]*")
_LONGEST_GUESS = 5


def problems(calls: Sequence[LogCall], events: Sequence[LogEvent]) -> list[str]:
    """Return a line for each call without an identifier, and for each entry that is not in order."""
    return [*_of_calls(calls, events), *_of_entries(events), *_unused(calls, events)]


def _of_calls(calls: Iterable[LogCall], events: Iterable[LogEvent]) -> Iterator[str]:
    templates, names = {event.template for event in events}, {event.id for event in events}
    for call in calls:
        if call.event is not None:
            if call.event not in names:
                yield f"{call.place}: event {call.event!r} is not in {TABLE.name}"
        elif call.says_nothing:
            yield f'{call.place}: the template says nothing; give the call extra={{"event": "AREA.WHAT"}}'
        elif call.template not in templates:
            yield f"{call.place}: no entry for {call.template!r}"


def _of_entries(events: Sequence[LogEvent]) -> Iterator[str]:
    meanings = Counter(event.id for event in events if event.meaning)
    templates = Counter(event.template for event in events if event.template)
    for name in dict.fromkeys(event.id for event in events):
        if _IDENTIFIER.fullmatch(name) is None:
            yield f"{name!r} is no identifier such as round.closed"
        if meanings[name] != 1:
            yield f"{name} has {meanings[name]} meanings, and needs one"
    for event in events:
        if templates[event.template] > 1:
            yield f"{event.id}: the template {event.template!r} stands in {templates[event.template]} entries"
        if event.template and places(event.template) != len(event.names):
            yield f"{event.id}: {len(event.names)} names for {places(event.template)} values"


def _unused(calls: Iterable[LogCall], events: Iterable[LogEvent]) -> Iterator[str]:
    templates = {call.template for call in calls}
    said = {call.event for call in calls}
    for event in events:
        if (event.template and event.template not in templates) or (
            not event.template and event.id not in said
        ):
            yield f"{event.id}: no call logs {event.template or 'it'!r} any more"


def entries_to_fill_in(calls: Iterable[LogCall], events: Iterable[LogEvent]) -> list[str]:
    """Return entries for what the table lacks, with guessed identifiers and names, and without meanings."""
    known = {event.template for event in events} | {event.id for event in events}
    written: dict[str, str] = {}
    for call in calls:
        key = call.event or call.template
        if key is None or key in known or key in written or (call.says_nothing and call.event is None):
            continue
        lines = ["[[event]]", f"id = {_quoted(call.event or _guessed_identifier(call))}"]
        if call.event is None:
            lines.append(f"template = {_quoted(key)}")
        lines.append(f"names = [{', '.join(_quoted(_guessed_name(value)) for value in _values(call))}]")
        written[key] = "\n".join([*lines, f'meaning = ""  # {call.place}']) + "\n"
    return list(written.values())


def _values(call: LogCall) -> tuple[str, ...]:
    return call.values[: places(call.template or "")]


def _guessed_identifier(call: LogCall) -> str:
    module = call.place.partition(".py:")[0].rpartition("/")[2]
    words = re.findall(r"[a-z]+", re.sub(r"%[^ ]*", "", call.template or "").lower())
    return f"{module}.{'_'.join(words[:_LONGEST_GUESS])}"


def _guessed_name(value: str) -> str:
    words = re.findall(r"[a-z_]+", value)
    return words[-1].strip("_") if words else "value"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def log_events_page() -> str:
    """Return the page: each event with level, fields, meaning, and what its line says now."""
    calls, events = log_calls(), read_log_events()
    parts = [
        "# Log events",
        "What a line of the log is, in its field `event` with `--log-format json` or "
        "`FEDMEDCLIP_LOG_FORMAT=json` ([how to watch](../how-to/monitor.md)). An identifier stays what it is "
        "from version to version; the words of the message may change. `fields` has the values under the "
        f"names given here. Debugging lines are `{DEBUGGING}`; those of methods and rules from outside, "
        f"and of libraries, `{UNLISTED}`.",
    ]
    for area in sorted({event.id.partition(".")[0] for event in events}):
        parts += [f"## {area}", "| event | level | meaning | message, fields |\n|---|---|---|---|"]
        names = sorted({event.id for event in events if event.id.partition(".")[0] == area})
        parts[-1] += "".join(_row(name, calls, events) for name in names)
    return "\n\n".join(parts) + "\n"


def _row(name: str, calls: Iterable[LogCall], events: Iterable[LogEvent]) -> str:
    own = [event for event in events if event.id == name]
    templates = {event.template for event in own if event.template}
    levels = {
        {"exception": "error", "log": "info"}.get(call.level, call.level)
        for call in calls
        if call.event == name or (call.event is None and call.template in templates)
    }
    messages = "<br>".join(_message(event) for event in own)
    meaning = next((event.meaning for event in own if event.meaning), "")
    return f"\n| `{name}` | {', '.join(sorted(levels))} | {_cell(meaning)} | {messages} |"


def _message(event: LogEvent) -> str:
    fields = ", ".join(f"`{name}`" for name in event.names)
    if not event.template:
        return fields
    words = f"<code>{_cell(event.template)}</code>"
    return f"{words}: {fields}" if fields else words


def _cell(text: str) -> str:
    return re.sub(r"([*_\[\]`|])", r"\\\1", escape(text, quote=False))


def main(words: Sequence[str] | None = None) -> None:
    """Say what is wrong; with --add, add what is lacking to the table first."""
    parser = argparse.ArgumentParser(description="Which log calls have no entry in the table of events.")
    parser.add_argument("--add", action="store_true", help="Add entries for new messages, to be filled in.")
    parser.add_argument("--table", type=Path, default=TABLE, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    calls, events = log_calls(), read_log_events(arguments.table)
    if arguments.add and (new := entries_to_fill_in(calls, events)):
        with arguments.table.open("a", encoding="utf-8") as table:
            table.write("".join(f"\n{entry}" for entry in new))
        print(
            f"{arguments.table}: {len(new)} entries added at its end; check id and names, write the meaning"
        )
        events = read_log_events(arguments.table)
    found = problems(calls, events)
    print("\n".join(found) or f"all {len(calls)} calls that log have their event")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
