"""What a person reads on the page."""

import re

import msgspec
import pytest

from fedmedclip.aggregator.chronicle import Happening
from fedmedclip.aggregator.page.glance import sentence
from fedmedclip.aggregator.page.history import budget_bytes
from fedmedclip.aggregator.status import FederationStatus, MemberStatus

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m"


def words_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def status_with(parts=(), **values):
    usual = {
        "federation": "f", "run": 1, "begun": "", "method": "", "version": 3, "rounds": 10, "running": True,
        "paused": False, "finished": False, "needed": 2, "delivered": 0, "round_seconds": None,
    }  # fmt: skip
    found = [MemberStatus(f"site-{number}", part) for number, part in enumerate(parts)]
    return FederationStatus(**{**usual, "members": found, **values})


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            status_with(),
            "Round 4 of 10 waits for the first hospitals: at least 2 are needed, and none is online.",
        ),
        (
            status_with(["delivered", "awaited"], delivered=1),
            "Round 4 of 10: 1 update is here, and the round waits for site-1.",
        ),
        (
            status_with(["awaited"] * 5),
            "Round 4 of 10: 0 updates are here, and the round waits for site-0, site-1, site-2 and 2 more.",
        ),
        (
            status_with(["delivered", "excused"], delivered=1),
            "Round 4 of 10: 1 update is here of at least 2, and nobody who is online has one to send.",
        ),
        (status_with(paused=True), "The run is paused after version 3: nobody trains until it is resumed."),
        (status_with(finished=True), "The run is finished: version 3 is its last."),
    ],
)
def test_one_sentence_says_where_the_run_stands(status, expected):
    assert sentence(status) == expected


def test_everything_is_on_the_page(watched):
    assert "2 of 5" in words_of(watched.section("glance"))
    assert "A round: every hospital takes the newest version" in words_of(watched.section("glance"))
    assert "The best is version 2, with 63.0%" in words_of(watched.section("accuracy"))
    assert "7.2 kB" in words_of(watched.section("bytes"))
    assert watched.section("time-line").count('class="lane"') == 3
    assert "site-0 ◐ awaited" in words_of(watched.section("members"))
    digest = watched.federation.store.newest_version().head_digest.hex()[:16]
    assert digest in watched.section("versions")
    assert "version 2 made of site-0, site-1, site-2" in words_of(watched.section("events"))
    assert "Method fedmedclip" in words_of(watched.section("plan"))


def test_what_sites_say_is_text(watched):
    view = watched.show()
    hostile = MemberStatus(HOSTILE, "excused", reason=HOSTILE, software=HOSTILE, last_round=HOSTILE)
    status = msgspec.structs.replace(
        view.status, members=[hostile], warnings=[HOSTILE], federation=HOSTILE, method=HOSTILE
    )
    happenings = [
        Happening(view.at, HOSTILE, "refused", 1, HOSTILE),
        Happening(view.at, "", "made", 1, HOSTILE),
    ]
    watched.showcase.put(type(view)(**{**vars(view), "status": status, "happenings": happenings}))
    for section in watched.page.sections:
        for may_change in (False, True):
            html = section.render(may_change)
            assert "<script" not in html
            assert "\x1b" not in html
            for value in re.findall(r'="([^"]*)"', html):
                assert "<" not in value


def test_buttons_are_for_those_who_may(watched):
    watched.show()
    assert all("<form" not in section.render(False) for section in watched.page.sections)
    buttons = watched.section("steering", True) + watched.section("versions", True)
    for action in ("pause", "end", "more-rounds", "leave-out", "quarantine", "roll-back"):
        assert f'action="/do/{action}"' in buttons
    assert 'action="/do/resume"' not in buttons
    # Each says what will happen before it does.
    assert buttons.count("<form") == buttons.count("<summary>")


def test_of_many_sites_those_come_first_that_need_a_look(watched):
    view = watched.show()
    parts = ["delivered"] * 60 + ["away"] + ["awaited"] * 3
    watched.showcase.put(type(view)(**{**vars(view), "status": status_with(parts, delivered=60)}))
    lanes = re.findall(r'class="lane">([^<]+)', watched.section("time-line"))
    assert lanes[:5] == ["site-60", "site-61", "site-62", "site-63", "site-0"]
    assert len(lanes) == 40
    assert "24 more are in the table of members" in watched.section("time-line")
    assert watched.section("members").count("<tr>") == 65


def test_a_time_line_shows_when_a_site_was_there(watched):
    view = watched.show()
    happenings = [
        Happening(view.at - after, "site-0", kind, 1, "")
        for after, kind in ((100, "joined"), (80, "offline"), (40, "online"), (20, "offline"))
    ]
    status = status_with(["away", "awaited"])
    watched.showcase.put(
        type(view)(**{**vars(view), "status": status, "happenings": happenings, "digests": ()})
    )
    html = watched.section("time-line")
    widths = [float(width) for width in re.findall(r'width="([0-9.]+)" height="10" class="span"', html)]
    assert widths[0] == pytest.approx(widths[1], abs=0.2)
    assert widths[2] == pytest.approx(5 * widths[0], abs=0.5)


def test_a_budget_is_what_the_codec_keeps_to():
    assert budget_bytes("auto:bytes=3000") == 3000
    assert budget_bytes("lowrank") is None
    assert budget_bytes("of-another-version") is None
