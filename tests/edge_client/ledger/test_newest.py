"""The newest entries are found from the end, whatever stands before them."""

from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import newest_entries, read_entries, segments_in


def test_they_are_the_last_of_all_over_several_segments(tmp_path):
    ledger = MessageLedger(tmp_path, segment_bytes=4000)
    for number in range(60):
        ledger.record("out", "topic", b"payload", "Update", f"update {number}" + "x" * (number * 10))
    ledger.close()
    entries = list(read_entries(tmp_path))
    assert len(segments_in(tmp_path)) > 5
    for most in (1, 7, 50, len(entries), 1000):
        assert newest_entries(tmp_path, most) == entries[::-1][:most]


def test_of_a_large_segment_only_the_end_is_read_and_what_is_no_entry_is_left_out(tmp_path):
    ledger = MessageLedger(tmp_path)
    for number in range(80):
        ledger.record("in", "topic", b"payload", "Block", f"{number}" + "y" * 1400)
    ledger.close()
    ((_, path),) = segments_in(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"torn')
    assert path.stat().st_size > 1 << 16
    assert newest_entries(tmp_path, 50) == list(read_entries(tmp_path))[::-1][:50]


def test_there_are_none_without_a_ledger(tmp_path):
    assert newest_entries(tmp_path / "none", 5) == []
