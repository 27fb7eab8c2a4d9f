"""What is recorded stays, through kills, full disks and lost databases; and what is cut is found."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from fedmedclip.edge_client.ledger import message_ledger
from fedmedclip.edge_client.ledger.end import END_SCHEMA, LedgerEnd
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import read_entries, segment_path, segments_in
from fedmedclip.edge_client.ledger.totals import beginning_of_day
from fedmedclip.edge_client.ledger.verification import verify
from fedmedclip.protocol.database import Database
from fedmedclip.protocol.errors import FullDiskError
from tests import ROOT
from tests.edge_client.ledger.place import NOW, Place


def test_what_is_recorded_is_read_back_and_whole(place):
    ledger = place.open(clock=lambda: NOW)
    entry = ledger.record("out", "fmc1/f/up/a", b"payload", "Join", "version 3")
    assert [found.kind for found in read_entries(place.folder)] == ["Beginning", "Join"]
    assert (entry.number, entry.at, entry.bytes) == (2, NOW, 7)
    assert entry.sha256 == hashlib.sha256(b"payload").hexdigest()
    ledger.close()
    verdict = place.verify()
    assert verdict.whole
    assert verdict.entries == 2
    assert (verdict.newest_number, verdict.newest_hash) == (2, entry.hash)
    assert place.folder.stat().st_mode & 0o077 == 0
    assert place.segment.stat().st_mode & 0o077 == 0


def test_the_format_is_what_the_documentation_says(place):
    place.fill(3)
    previous = "0" * 64
    for line in place.segment.read_bytes().splitlines():
        hashed, own = line[:-2].rsplit(b',"hash":"', 1)
        assert hashlib.sha256(hashed).hexdigest() == own.decode()
        assert f'"previous":"{previous}"'.encode() in line
        previous = own.decode()


def test_it_goes_on_over_starts_and_segments(place):
    place.fill(5, segment_bytes=1000)
    place.fill(5, segment_bytes=1000)
    assert len(segments_in(place.folder)) > 3
    assert [entry.number for entry in read_entries(place.folder)] == list(range(1, 12))
    assert place.verify().whole


def test_a_database_that_is_behind_is_no_fault(place):
    place.fill(2)
    behind = place.copy_database()
    place.fill(3)
    place.restore_database(behind)
    assert place.verify().whole
    assert place.open().totals().sent.messages == 5
    assert place.verify().whole


def test_a_torn_last_line_is_cut_and_said(place):
    place.fill(2)
    with place.segment.open("ab") as file:
        file.write(b'{"number":4,"at":17')
    verdict = place.verify()
    assert verdict.whole
    assert verdict.incomplete
    place.fill(1)
    assert [entry.kind for entry in read_entries(place.folder)][-2:] == ["Cut", "Update"]
    verdict = place.verify()
    assert verdict.whole
    assert not verdict.incomplete


@pytest.mark.parametrize("left", [0, 2, 4])
def test_a_ledger_that_was_cut_is_found_and_never_mended(place, left):
    place.fill(4)
    lines = place.segment.read_bytes().splitlines(keepends=True)
    place.segment.write_bytes(b"".join(lines[:left]))
    missing = "entry 5 is missing" if left == 4 else f"entries {left + 1} to 5 are missing"
    assert missing in place.verify().faults[0]
    place.fill(2)
    assert place.end.mark().number > 5
    faults = place.verify().faults
    assert "begins anew after a break: entry 5" in faults[-1]
    place.fill(2)
    assert len(place.verify().faults) == len(faults)
    assert place.verify().newest_number == 10


def test_a_ledger_that_was_removed_is_found(place):
    place.fill(3)
    place.segment.unlink()
    assert "entries 1 to 4 are missing" in place.verify().faults[0]
    place.fill(1)
    assert not place.verify().whole
    assert place.end.mark().number == 6


def test_one_that_was_written_anew_with_right_hashes_is_found(place, tmp_path):
    place.fill(3)
    other = Place(tmp_path / "other")
    other.fill(3, clock=lambda: NOW)
    place.segment.write_bytes(other.segment.read_bytes())
    assert "entry 4 is changed: its hash was" in place.verify().faults[0]
    place.fill(1)
    assert "begins anew after a break" in place.verify().faults[-1]


def test_what_is_changed_after_the_known_end_is_a_break(place):
    place.fill(1)
    behind = place.copy_database()
    place.fill(3)
    place.restore_database(behind)
    content = place.segment.read_bytes()
    place.segment.write_bytes(content.replace(b"round 1 ", b"round 7 "))
    place.fill(1)
    assert any("begins anew after a break" in fault for fault in place.verify().faults)
    numbers = [entry.number for entry in read_entries(place.folder)]
    assert len(numbers) == len(set(numbers))


def test_a_state_without_ledger_takes_over_the_one_that_is_here(place, tmp_path):
    place.fill(3)
    os.unlink(place.file)
    fresh = Database(tmp_path / "new.db", END_SCHEMA, durable=False)
    ledger = MessageLedger(place.folder, LedgerEnd(fresh))
    assert ledger.totals().sent.messages == 3
    assert [entry.kind for entry in read_entries(place.folder)][-1] == "TakenUp"
    assert verify(place.folder, LedgerEnd(fresh).mark()).whole


def test_totals_are_quick_and_right_after_a_start(place):
    moments = iter([NOW - 5 * 86400 + second for second in range(10)] + [NOW] * 100)
    ledger = place.open(clock=lambda: next(moments))
    for size in (10, 20, 30):
        ledger.record("out", "t", bytes(size), "Update")
    for size in (1, 2):
        ledger.record("in", "t", bytes(size), "Receipt")
    ledger.close()
    ledger = place.open(clock=lambda: NOW)
    ledger.record("out", "t", bytes(7), "Join")
    assert ledger.sent_bytes() == 67
    assert ledger.sent_bytes(since=NOW - 1000) == 7
    assert ledger.sent_bytes(since=beginning_of_day(NOW)) == 7
    totals = ledger.totals()
    assert (totals.sent.bytes, totals.sent_today.bytes, totals.received.bytes) == (67, 7, 3)
    assert [(found.kind, found.in_all.messages) for found in totals.kinds if found.direction == "out"] == [
        ("Join", 1),
        ("Update", 3),
    ]
    ledger.close()
    again = place.open(clock=lambda: NOW)
    assert again.totals() == totals
    # Older than two days: counted by days.
    assert len({quarter for quarter, direction, _ in place.end.totals() if direction == "out"}) == 2


def test_a_full_disk_ends_recording_and_leaves_no_half_entry(place, monkeypatch):
    place.fill(1)
    ledger = place.open()

    def write(descriptor, data):
        os.pwrite(descriptor, bytes(data[:20]), os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(message_ledger.os, "write", write)
        with pytest.raises(FullDiskError, match="nothing is sent unrecorded: free some space"):
            ledger.record("out", "t", b"x", "Update")
    with pytest.raises(FullDiskError):
        ledger.record("out", "t", b"x", "Update")
    with pytest.raises(FullDiskError):
        ledger.keep_end()
    ledger.close()
    verdict = place.verify()
    assert verdict.whole
    assert not verdict.incomplete
    assert verdict.entries == 2
    place.fill(1)
    assert place.verify().whole


def test_two_threads_record_in_one_chain(place):
    ledger = place.open()

    def record():
        for _ in range(50):
            ledger.record("out", "t", b"will", "Status")

    threads = [threading.Thread(target=record) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert place.verify().whole
    assert place.verify().entries == 151


def test_what_strangers_wrote_stays_short_and_in_one_line(place):
    ledger = place.open()
    ledger.record("in", "t/" + "\x1b\n\u202e" * 30_000, b"", "unreadable", "\U000e0001" * 5000 + '"\\')
    ledger.close()
    assert len(place.segment.read_bytes().splitlines()[-1]) < 8192
    assert place.verify().whole


RECORD_FOR_EVER = """
import sys
from pathlib import Path
from fedmedclip.edge_client.ledger.end import END_SCHEMA, LedgerEnd
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.protocol.database import Database
folder = Path(sys.argv[1])
end = LedgerEnd(Database(folder / "site.db", END_SCHEMA))
ledger = MessageLedger(folder / "ledger", end, segment_bytes=3000)
number = 0
while True:
    number += 1
    entry = ledger.record("out", "t", number.to_bytes(4, "big"), "Update")
    print(entry.sha256, flush=True)
    if number % 3 == 0:
        ledger.keep_end()
"""


def test_killed_at_any_moment_it_is_whole_and_has_all_that_was_sent(tmp_path):
    sent = []
    for kill in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", RECORD_FOR_EVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        sent += [process.stdout.readline().strip() for _ in range(7 + 5 * kill)]
        process.send_signal(signal.SIGKILL)
        sent += process.stdout.read().split()
        process.wait()
        place = Place(tmp_path)
        verdict = place.verify()
        assert verdict.whole, verdict.faults
        recorded = [entry.sha256 for entry in read_entries(place.folder) if entry.direction == "out"]
        # What was recorded and not sent is an entry too many.
        assert set(sent) <= set(recorded)
        assert len(recorded) - len(sent) <= kill + 1
        place.database.close()
    assert not segment_path(place.folder, 99).exists()
