"""What happened at a site: the newest so many, written seldom, however many come."""

import msgspec
import pytest

from fedmedclip.edge_client.site.events import MOST_EVENTS, Events
from fedmedclip.edge_client.site.events_command import events_command
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.errors import InvalidInputError


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_events_are_kept_in_order_and_survive_the_process(tmp_path):
    state = SiteState(tmp_path / "site.db")
    state.events.note("trained", "round 1\n\x1b[2J")
    state.events.note("delivered", "round 1")
    state.events.write(at_once=True)
    state.close()
    again = SiteState(tmp_path / "site.db")
    found = again.events.newest()
    again.close()
    assert [(event.kind, event.words) for event in found] == [
        ("trained", "round 1\\n\\x1b[2J"), ("delivered", "round 1")
    ]  # fmt: skip


def test_they_are_written_at_most_once_a_second(state, monkeypatch):
    clock = Clock()
    events = Events(state.events._database, clock)
    events.note("a", "")
    events.write()
    events.note("b", "")
    events.write()
    assert [event.kind for event in events.newest()] == ["a"]
    clock.now += 1
    events.write()
    assert [event.kind for event in events.newest()] == ["a", "b"]


def test_a_clock_that_was_set_back_does_not_keep_them_from_the_disk(state):
    clock = Clock()
    events = Events(state.events._database, clock)
    events.note("a", "")
    events.write()
    clock.now -= 500
    events.note("b", "")
    events.write()
    assert [event.kind for event in events.newest()] == ["a", "b"]


def test_neither_disk_nor_memory_is_filled(state):
    events = state.events
    for turn in range(12):
        for number in range(1000):
            events.note("connected", f"{turn} {number}" + "x" * 10_000)
        events.write(at_once=True)
    found = events.newest()
    assert len(found) == MOST_EVENTS
    assert found[-1].words.startswith("11 199x")
    assert max(len(event.words) for event in found) <= 400


def test_the_command_shows_them_for_people_and_for_programs(tmp_path, capsys):
    (tmp_path / "site.toml").write_text(
        '[site]\nfederation = "f"\nname = "a"\nbundle = "b"\ndata = "d"\nstate = "."\n'
    )
    with pytest.raises(InvalidInputError, match="nothing has happened"):
        events_command(tmp_path / "site.toml")
    state = SiteState(tmp_path / "site.db")
    for number in range(3):
        state.events.note("trained", f"round {number}")
    state.events.write(at_once=True)
    state.close()
    events_command(tmp_path / "site.toml", last=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("trained")[1].strip() for line in lines] == ["round 1", "round 2"]
    events_command(tmp_path / "site.toml", last=1, as_json=True)
    (found,) = msgspec.json.decode(capsys.readouterr().out)["events"]
    assert (found["kind"], found["words"]) == ("trained", "round 2")
