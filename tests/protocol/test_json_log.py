"""Log lines as JSON: what they have, and that nothing that is logged can break them."""

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.json_log import JsonFormatter
from fedmedclip.protocol.log_events import LogEvent, LogEvents, log_events

EVENTS = LogEvents(
    [
        LogEvent("round.closed", ("round", "sites"), "round %d: aggregated %s", "A round closed."),
        LogEvent("broker.disconnected", ("reason",), "", "The connection is lost."),
    ]
)


def line(template, *values, level=logging.INFO, **extra):
    """Return the object of a log line."""
    record = logging.LogRecord("fedmedclip.site", level, "file.py", 1, template, values, None)
    vars(record).update(extra)
    text = JsonFormatter(EVENTS).format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_has_time_level_event_message_and_the_values_by_name():
    found = line("round %d: aggregated %s", 3, "north, south")
    assert datetime.fromisoformat(found.pop("time")).tzinfo is not None
    assert found == {
        "level": "info",
        "logger": "fedmedclip.site",
        "event": "round.closed",
        "message": "round 3: aggregated north, south",
        "fields": {"round": 3, "sites": "north, south"},
    }


def test_a_built_sentence_is_known_by_what_its_call_says():
    found = line("%s", "the broker hangs up", event="broker.disconnected", level=logging.WARNING)
    assert (found["event"], found["level"]) == ("broker.disconnected", "warning")
    assert found["fields"] == {"reason": "the broker hangs up"}


def test_what_the_table_does_not_know_has_a_name_too():
    assert line("from outside: %s", 1)["event"] == "unlisted"
    assert line("from outside: %s", 1)["fields"] == {"argument_1": 1}
    assert line("seen %s", 1, level=logging.DEBUG)["event"] == "debugging"
    assert line("%s", 1, event="their.own")["event"] == "their.own"
    assert line("%(name)s", {"name": "x"})["fields"] == {"name": "x"}


class Unshowable:
    def __str__(self):
        raise ValueError("no words")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("round %d", ("three",)),
        ("no place", (1, 2)),
        ("%s and %s", (1,)),
        ("%s", (Unshowable(),)),
        ("%q", (1,)),
    ],
)
def test_values_that_do_not_fit_cost_their_words_and_not_the_line(template, values):
    assert line(template, *values)["level"] == "info"


@given(
    st.text(),
    st.lists(st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none(), st.booleans())),
)
def test_whatever_is_logged_is_one_object_in_one_line_of_utf_8(template, values):
    record = logging.LogRecord("fedmedclip", logging.INFO, "file.py", 1, template, tuple(values), None)
    text = JsonFormatter(EVENTS).format(record)
    assert text.isprintable()
    text.encode()
    # Numbers that JSON does not have would not be read by others.
    json.loads(text, parse_constant=pytest.fail)


PROGRAM = """
import logging, threading, warnings
from fedmedclip.protocol.console import LogFormat, log_to_terminal, logs_json

assert not logs_json()
log_to_terminal(verbose=False, log_format=LogFormat.JSON)
assert logs_json()
log = logging.getLogger("fedmedclip.site")
log.info("round %d: aggregated %s", 1, "a\\nb\\x1b[2J\\udce9")
try:
    raise OSError("broken\\x1b")
except OSError:
    log.exception("method %r fails", "fedclip")
warnings.warn("a library warns")
logging.getLogger("library").error("another does")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise AssertionError("a fault")
"""


def test_every_line_on_standard_error_is_an_object():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 1
    closed, failed, warned, said, of_thread, fault = map(json.loads, done.stderr.splitlines())
    assert closed["message"] == r"round 1: aggregated a\nb\x1b[2J\xe9"
    assert (failed["event"], failed["fields"]) == ("training.method_fails", {"method": "fedclip"})
    assert failed["traceback"][-1] == r"OSError: broken\x1b"
    assert (warned["event"], warned["level"]) == ("unlisted", "warning")
    assert (said["logger"], said["level"], said["message"]) == ("library", "error", "another does")
    assert (of_thread["event"], of_thread["fields"]) == ("command.fault", {"error": "ZeroDivisionError"})
    assert (fault["level"], fault["traceback"][-1]) == ("critical", "AssertionError: a fault")


def test_the_table_gives_what_operators_wait_for():
    events = log_events()
    for template, values, event in [
        ("round %d: aggregated %s", (1, "a"), "round.closed"),
        ("%s joined with %d training images", ("a", 1), "site.joined"),
        ("refused a message of %s: %s", ("a", "b"), "message.refused"),
        ("refused a message on %s: %s", ("a", "b"), "message.refused"),
    ]:
        record = logging.LogRecord("fedmedclip", logging.INFO, "", 1, template, values, None)
        assert events.of(record)[0] == event
