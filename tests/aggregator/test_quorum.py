"""Who consents counts: what is said where they are too few, and how many updates then close a round."""

import logging

from fedmedclip.aggregator.members import Unable
from fedmedclip.aggregator.quorum import QuorumWatch, shortage
from fedmedclip.aggregator.round_events import (
    CloseRound,
    RoundSettings,
    SiteDeclined,
    SiteExcused,
    SiteJoined,
    UpdateStored,
)
from fedmedclip.aggregator.round_logic import Rounds
from fedmedclip.protocol.plan_words import AWAITS_CONSENT, REFUSED

AWAITS, REFUSES = Unable("1", AWAITS_CONSENT), Unable("1", f"{REFUSED}: no ethics vote")
BROKEN = Unable("1", "unknown codec")


def test_what_keeps_a_site_away_is_told_apart():
    assert [said.part for said in (AWAITS, REFUSES, Unable("1", REFUSED), BROKEN)] == [
        "awaits consent", "refused", "refused", "unable",
    ]  # fmt: skip


def test_nothing_is_lacking_where_enough_take_part_or_nobodys_consent_would_help():
    assert shortage({"a", "b", "c"}, {"c": REFUSES}, 2) == ""
    assert shortage({"a", "b"}, {"b": BROKEN}, 2) == ""
    assert shortage({"a", "b"}, {}, 3) == ""  # who is away is not a question of consent


def test_it_says_how_many_there_are_how_many_take_part_and_how_many_are_needed():
    said = shortage({"a", "b"}, {"b": REFUSES, "c": AWAITS, "d": BROKEN}, 3)
    assert said.startswith(
        "1 of 4 sites take part, and a round needs 3: it waits (b refused, c awaits consent)"
    )
    many = {f"site-{number:03}": AWAITS for number in range(500)}
    assert "and 495 more" in shortage(set(), many, 2)
    assert len(shortage(set(), many, 2)) < 500


def test_it_is_logged_when_it_begins_and_ends_and_seldom_between(caplog):
    caplog.set_level(logging.INFO)
    watch = QuorumWatch()
    for second in range(120):
        watch.look(f"{second} lack", float(second))
    watch.look("", 121.0)
    watch.look("", 122.0)
    assert [record.message for record in caplog.records] == ["0 lack", "60 lack", "enough sites take part"]


def test_who_declines_is_not_waited_for_and_makes_fewer_not_enough():
    rounds = Rounds(RoundSettings(5, 2, 100.0, 1000.0), 0, ["a", "b", "c"])
    rounds.handle(SiteDeclined("b"), 0.0)
    rounds.handle(SiteDeclined("c"), 0.0)
    assert rounds.handle(UpdateStored("a"), 1.0) is None
    assert rounds.needed() == 2
    # One that is excused counts as where it was no member: with the one that declined there is one left.
    rounds.handle(SiteJoined("b"), 2.0)
    assert rounds.handle(SiteExcused("b", "it abstained"), 3.0) == CloseRound(1, ("a",))
    assert rounds.needed() == 1
