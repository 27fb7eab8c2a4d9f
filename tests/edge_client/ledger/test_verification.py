"""Whatever is done to a ledger, its state knows the end and `verify` says that it is not whole, and where."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.edge_client.ledger.end import Mark
from fedmedclip.edge_client.ledger.entry import entry_after, entry_in, line_of
from fedmedclip.edge_client.ledger.verification import verify
from tests.edge_client.ledger.place import NOW, Place

ENTRIES = 6


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder to try in, the content of a whole ledger, and its end."""
    place = Place(tmp_path_factory.mktemp("written"))
    place.fill(ENTRIES - 1, clock=lambda: NOW)
    return place.segment, place.segment.read_bytes(), place.end.mark()


def verdict_of(written, content):
    path, _, known = written
    path.write_bytes(content)
    return verify(path.parent, known)


def test_the_whole_one_is_whole(written):
    assert verdict_of(written, written[1]).whole


@given(st.data())
def test_any_changed_byte_is_found(written, data):
    content = bytearray(written[1])
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    verdict = verdict_of(written, bytes(content))
    assert not verdict.whole
    line = written[1][:position].count(b"\n") + 1
    # The one that is changed, or the next, to which it does not lead, or what is missing from there on.
    assert any(str(number) in verdict.faults[0] for number in (line, line + 1)), verdict.faults


@given(st.integers(0, 10_000))
def test_any_truncation_is_found(written, length):
    content = written[1][: length % len(written[1])]
    verdict = verdict_of(written, content)
    assert f"{ENTRIES} " in verdict.faults[-1]
    assert "missing" in verdict.faults[-1]


@given(st.data())
def test_entries_that_are_removed_repeated_or_moved_are_found(written, data):
    lines = written[1].splitlines(keepends=True)
    others = data.draw(
        st.one_of(
            st.permutations(lines),
            st.lists(st.sampled_from(lines), max_size=9),
        )
    )
    assert verdict_of(written, b"".join(others)).whole == (others == lines)


@given(st.integers(1, ENTRIES), st.text(max_size=20))
def test_an_entry_that_is_rewritten_with_its_right_hash_is_found(written, number, note):
    lines = written[1].splitlines()
    entry = entry_in(lines[number - 1])
    changed = msgspec.structs.replace(entry, note=note)
    draft = msgspec.convert(msgspec.to_builtins(changed), type=type(entry))
    again = entry_after(entry.number - 1, entry.previous, entry.at, draft)
    lines[number - 1] = line_of(again)
    verdict = verdict_of(written, b"\n".join(lines) + b"\n")
    assert verdict.whole == (again == entry)


@given(st.binary(max_size=200))
def test_what_is_appended_is_found(written, more):
    verdict = verdict_of(written, written[1] + more + b"\n")
    assert not verdict.whole


def test_it_says_what_is_wrong_in_words(written):
    lines = written[1].splitlines(keepends=True)
    without = verdict_of(written, b"".join(lines[:2] + lines[4:]))
    assert without.faults[0].startswith("entries 3 to 4 are missing; entry 5 comes next")
    first = verdict_of(written, b"".join(lines[1:]))
    assert first.faults[0].startswith("entry 1 is missing; entry 2 comes next")
    twice = verdict_of(written, b"".join(lines[:3] + lines[2:]))
    assert twice.faults[0].startswith("entry 3 stands where 4 should")
    changed = verdict_of(written, written[1].replace(b"round 2 ", b"round 3 "))
    assert changed.faults[0].startswith("entry 4 is changed: its hash is not that of its content")
    assert len(changed.faults) == 1


def test_a_noted_entry_shows_what_the_state_does_not(written):
    path, content, known = written
    path.write_bytes(content)
    entry = entry_in(content.splitlines()[2])
    assert verify(path.parent, known, Mark(entry.number, entry.hash)).whole
    other = verify(path.parent, known, Mark(entry.number, "0" * 64))
    assert other.faults == [f"entry 3 is changed: its hash was {'0' * 16}... and is {entry.hash[:16]}..."]
    later = verify(path.parent, known, Mark(99, "0" * 64))
    assert later.faults == ["entries 7 to 99 are missing; the ledger is cut"]
    assert verify(path.parent, known, Mark(entry.number, "0" * 64), first=4).whole
