"""What comes is on record before it is acted on, and a flood does not fill the disk."""

import hashlib
import itertools

import pytest

from fedmedclip.edge_client.ledger.incoming import Incoming
from fedmedclip.edge_client.ledger.segments import read_entries
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Block, Receipt
from fedmedclip.protocol.signature import new_signing_key

DOWN = "fmc1/f/down/a"
KEY = new_signing_key()
RECEIPT = Receipt(3, True, "", False, bytes(8))


@pytest.fixture
def ledger(place):
    ledger = place.open()
    yield ledger
    ledger.close()


def entries(place):
    return [(entry.kind, entry.note) for entry in read_entries(place.folder) if entry.direction == "in"]


def test_what_is_acted_on_is_recorded_once(place, ledger):
    incoming, payload = Incoming(ledger), seal(RECEIPT, DOWN, KEY, bytes(16))
    incoming.take(DOWN, payload, RECEIPT, 0.0)
    assert entries(place) == [("Receipt", "round 3 accepted")]
    incoming.came(DOWN, payload, 0.0)
    assert entries(place) == [("Receipt", "round 3 accepted")]
    incoming.came(DOWN, payload, 0.0)
    assert entries(place)[1:] == [("Receipt", "not acted on when it came")]


def test_a_flood_is_counted_and_what_is_acted_on_meanwhile_is_recorded(place, ledger):
    incoming, clock = Incoming(ledger), itertools.count(0.0, 0.01)
    sizes, digest = 0, hashlib.sha256()
    for number in range(5000):
        payload = number.to_bytes(4, "big")
        incoming.came(DOWN, payload, next(clock))
        if number >= 100:
            sizes += 4
            digest.update(hashlib.sha256(payload).digest())
    payload = seal(RECEIPT, DOWN, KEY, bytes(16))
    incoming.take(DOWN, payload, RECEIPT, 60.0)
    incoming.came(DOWN, payload, 60.0)
    assert len(entries(place)) == 101
    incoming.sum_up(60.0)
    assert len(entries(place)) == 101
    incoming.sum_up(400.0)
    (*_, dropped) = read_entries(place.folder)
    assert (dropped.kind, dropped.bytes, dropped.sha256) == ("Dropped", sizes, digest.hexdigest())
    assert dropped.note.startswith("4900 messages that were not acted on")
    assert entries(place)[0] == ("unreadable", "not acted on when it came")


class Unwritten:
    """A ledger that keeps nothing."""

    def record(self, *_):
        pass


def test_a_coordinator_cannot_fill_the_disk_either():
    incoming = Incoming(Unwritten())
    for _ in range(20_000):
        incoming.take(DOWN, b"", RECEIPT, 0.0)
    with pytest.raises(MessageError, match="more messages Receipt than a site takes in"):
        incoming.take(DOWN, b"", RECEIPT, 0.0)
    incoming.take(DOWN, b"", Block(bytes(32), 0, b""), 0.0)
    incoming.take(DOWN, b"", RECEIPT, 1.0)
