"""The report says what left, in words, as one page that prints; and never more than the ledger has."""

import html.parser
import itertools
import re

import pytest

from fedmedclip.edge_client.ledger.account import account_of
from fedmedclip.edge_client.ledger.kinds import SENT
from fedmedclip.edge_client.ledger.replay import Replay, ReplayedKind, ReplayedUpdate
from fedmedclip.edge_client.ledger.report import Subject, report_html
from fedmedclip.edge_client.ledger.segments import read_entries
from fedmedclip.edge_client.ledger.verification import verify
from fedmedclip.protocol.envelope import CARRIED
from tests.edge_client.ledger.place import NOW

SUBJECT = Subject(
    "hospital-a", "brain-mri", "ab" * 32, "cd" * 32, "0.2.0", NOW, [("[policy] approve", "ask")],
    [("run 7", "approved by <b>root</b>")], ["run 7: 1 update, epsilon 1 of 8"],
)  # fmt: skip
REPLAYED = Replay(
    [ReplayedUpdate(7, 1, 0, "same", "2 messages", 2, 20), ReplayedUpdate(7, 2, 0, "differs", "why", 1, 9)],
    [ReplayedKind("Join", same=1)],
)
DAY = 86400


class Page(html.parser.HTMLParser):
    """The elements of a page in order, with their attributes; those that were opened are closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture
def sent(place):
    """A ledger of two months and three updates, one of them in blocks, one sent twice."""
    now = [NOW]
    ledger = place.open(clock=lambda: now[0])
    ledger.record("out", "up", bytes(10), "Update", "run 7 round 1 attempt 0")
    now[0] += 40 * DAY
    digest = "ef" * 32
    for _ in range(2):
        note = f"run 7 round 2 attempt 0 object {digest} of 5 bytes in blocks of 1024"
        ledger.record("out", "up", bytes(20), "Update", note)
    ledger.record("out", "up", bytes(1000), "Block", f"object {digest} block 0")
    ledger.record("out", "up", bytes(7), "Block", f"object {'00' * 32} block 0")
    ledger.record("out", "up", b"<script>", "Join", '[3,"<script>alert(1)</script>"]')
    ledger.record("in", "plan", b"plan", "Plan", "run 7")
    ledger.close()
    return place


def page_of(place, replayed=REPLAYED):
    return report_html(SUBJECT, account_of(read_entries(place.folder)), place.verify(), replayed)


def test_it_counts_by_kind_by_month_and_by_update(sent):
    account = account_of(read_entries(sent.folder))
    assert {kind: (count.messages, count.bytes) for kind, count in account.sent.items()} == {
        "Update": (3, 50), "Block": (2, 1007), "Join": (1, 8),
    }  # fmt: skip
    months = {
        month: sum(count.messages for count in kinds.values()) for month, kinds in account.months.items()
    }
    assert months == {"2025-10": 1, "2025-11": 5}
    first, second = account.updates
    assert (first.round_number, first.messages, first.bytes) == (1, 1, 10)
    assert (second.round_number, second.messages, second.bytes) == (2, 3, 1040)
    assert [event.kind for event in account.events] == ["Beginning"]


def test_it_is_one_page_with_headings_and_table_heads_and_no_script(sent):
    text = page_of(sent)
    page = Page(text)
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert not page.all("script")
    assert not page.all("img")
    assert not re.search(r"(src|href)=|url\(|@import", text)
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert "@page { size: A4" in text
    words = " ".join(page.words)
    for wanted in (
        "cd" * 32,
        "membership inference",
        "run 7 round 2: differs",
        "epsilon 1 of 8",
        "[policy] approve",
        "approved by <b>root</b>",
        "The record is whole",
    ):
        assert wanted in words


def test_a_ledger_that_is_not_whole_is_said_first(sent):
    lines = sent.segment.read_bytes().splitlines(keepends=True)
    sent.segment.write_bytes(b"".join(lines[:3] + lines[4:]))
    words = " ".join(Page(page_of(sent, None)).words)
    assert "The record is NOT whole" in words
    assert "entry 4 is missing" in words
    assert "Nothing was made again" in words


def test_one_of_which_the_state_knows_nothing_is_not_called_compared(sent):
    verdict = verify(sent.folder)
    text = report_html(SUBJECT, account_of(read_entries(sent.folder)), verdict, None)
    assert "so that its end may be missing" in text


def test_every_kind_that_a_site_sends_is_explained():
    kinds = {kind.__name__ for channel in ("up", "status") for kind in CARRIED[channel]}
    assert kinds | {"EnrolmentRequest"} <= SENT.keys()
