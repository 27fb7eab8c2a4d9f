"""Every call that logs has its event, and the tool that says so finds what has none."""

import pytest

from docs.generators.log_calls import log_calls
from docs.generators.log_events import entries_to_fill_in, log_events_page, main, problems
from fedmedclip.protocol.log_events import TABLE, LogEvent, places, read_log_events

HOW_TO_MEND = "python -m docs.generators.log_events --add, then write the meanings"

MODULE = """
import logging

log = logging.getLogger("fedmedclip.here")

class Reminders:
    def warn(self, words, line):
        log.warning(words, line)

def work(reminders, error, sites):
    log.debug("nobody needs to know %s", error)
    log.info("round %d: closed with %s", 3, ", ".join(sites))
    log.log(logging.INFO, "asked %s", error.reason)
    log.warning("%s", error)
    log.warning(f"built {error}")
    log.warning("%s", error, extra={"event": "here.built"})
    reminders.warn("again: %s", str(error))
    tell = log.warning if error else log.info
    tell("it ends in %d days", error.days)
"""


@pytest.fixture
def calls(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "module.py").write_text(MODULE)
    return log_calls(tmp_path, ("room",))


def test_every_call_that_logs_has_its_event_and_every_event_its_call():
    assert problems(log_calls(), read_log_events()) == [], HOW_TO_MEND


def test_calls_are_found_with_the_functions_that_pass_a_template_on(calls):
    assert [(call.level, call.template, call.event) for call in calls] == [
        ("info", "round %d: closed with %s", None),
        ("log", "asked %s", None),
        ("warning", "%s", None),
        ("warning", None, None),
        ("warning", "%s", "here.built"),
        ("warning", "again: %s", None),
        ("info", "it ends in %d days", None),
    ]


def test_what_is_added_lacks_nothing_but_its_meaning(calls, tmp_path):
    assert len(problems(calls, [])) == len(calls)
    table = tmp_path / "events.toml"
    table.write_text("\n".join(entries_to_fill_in(calls, [])))
    added = read_log_events(table)
    assert [(event.id, event.names) for event in added] == [
        ("module.round_closed_with", ("value", "sites")),
        ("module.asked", ("reason",)),
        ("here.built", ("error",)),
        ("module.again", ("error",)),
        ("module.it_ends_in_days", ("days",)),
    ]
    left = problems(calls, added)
    assert [words.endswith("has 0 meanings, and needs one") for words in left] == [False] * 2 + [True] * 5


def test_an_entry_that_is_not_in_order_is_found(calls):
    events = [
        LogEvent("Round", ("round", "sites"), "round %d: closed with %s", "It closed."),
        LogEvent("a.b", (), "asked %s", "Asked."),
        LogEvent("a.c", ("what",), "asked %s", "Asked."),
        LogEvent("here.built", ("words",), "", "Built."),
        LogEvent("module.again", ("words",), "again: %s", "Again."),
        LogEvent("gone.long_ago", (), "nobody says this", "Gone."),
    ]
    found = "\n".join(problems(calls, events))
    for words in (
        "'Round' is no identifier",
        "0 names for 1 values",
        "stands in 2 entries",
        "gone.long_ago: no",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("template", "values"), [("%d of %5.1f %%", (1, 2.0)), ("%-7s|%r", ("a", "b")), ("%% %s", ("a",))]
)
def test_places_are_counted_as_the_logging_module_fills_them(template, values):
    assert places(template) == len(values)
    assert template % values


def test_the_reference_has_every_event_with_its_meaning():
    page = log_events_page()
    for event in read_log_events():
        assert f"| `{event.id}` |" in page
    assert "| `round.closed` | info | A round closed" in page
    assert "| | " not in page


def test_the_tool_adds_what_the_table_lacks_and_says_what_is_left(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert "have their event" in capsys.readouterr().out
    table = tmp_path / "events.toml"
    whole = TABLE.read_text(encoding="utf-8")
    start = whole.index('[[event]]\nid = "run.finished"')
    lacking = whole[start : whole.index("[[event]]", start + 1)]
    table.write_text(whole.replace(lacking, ""), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["--add", "--table", str(table)])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "1 entries added" in printed
    assert "loop.run_finished_at_version has 0 meanings" in printed
    (added,) = [event for event in read_log_events(table) if event.id == "loop.run_finished_at_version"]
    assert (added.template, added.names) == ("run finished at version %d", ("version",))
