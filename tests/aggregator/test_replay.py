"""Old copies of what sites said change nothing, whoever sends them again and when."""

import msgspec
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.messages import LAST_WORD, Join, Moment, Status, Update
from fedmedclip.protocol.signature import fingerprint, new_signing_key
from tests.aggregator.test_coordinator_and_members import (
    BUNDLE,
    FEDERATION,
    PLAN,
    SETTINGS,
    SITE_KEYS,
    Aggregator,
    delta,
    large_update,
)

KEY = SITE_KEYS["a"].public_key
MARK = fingerprint(KEY)


@pytest.fixture
def aggregator(tmp_path):
    aggregator = Aggregator(tmp_path)
    for site in "ab":
        aggregator.hear(site, join(site, Moment(1000, 1, 1)))
    yield aggregator
    aggregator.store.close()


def join(site, moment, *, samples=100, version=0, cannot="", revision=1):
    return Join(SITE_KEYS[site].public_key, BUNDLE, samples, version, "", cannot, moment, revision)


def samples_of(aggregator, site):
    query = "SELECT samples FROM sites WHERE name = ?"
    return aggregator.store._database.row(query, (site,))[0]


def test_a_last_will_says_nothing_once_its_site_has_connected_again(aggregator):
    will = Status(MARK, False, -1, Moment(1000, 1, LAST_WORD))
    aggregator.hear("a", join("a", Moment(1000, 2, 1)))
    for start in (False, True):
        if start:
            aggregator.start()
        aggregator.hear("a", will)
        assert aggregator.rounds.present("a")
    aggregator.hear("a", Status(MARK, False, -1, Moment(1000, 2, LAST_WORD)))
    assert not aggregator.rounds.present("a")


def test_nothing_that_was_said_on_a_connection_counts_after_its_last_will(aggregator):
    online = Status(MARK, True, 0, Moment(1000, 1, 2))
    aggregator.hear("a", online)
    aggregator.hear("a", Status(MARK, False, -1, Moment(1000, 1, LAST_WORD)))
    for old in (online, join("a", Moment(1000, 1, 3)), join("a", Moment(1000, 1, 1))):
        aggregator.hear("a", old)
        assert not aggregator.rounds.present("a")


def test_a_copy_of_a_status_renews_no_lease_and_takes_no_version_back(aggregator):
    old = Status(MARK, True, 0, Moment(1000, 1, 2))
    aggregator.hear("a", old)
    aggregator.hear("a", Status(MARK, True, 2, Moment(1000, 1, 3)))
    for now in range(0, 600, 20):
        aggregator.hear("a", old, float(now))
        aggregator.tick(float(now))
    assert aggregator.coordinator.versions_held["a"] == 2
    assert not aggregator.rounds.present("a")


def test_a_copy_of_an_earlier_join_changes_nothing_and_is_told_what_came_later(aggregator):
    aggregator.hear("a", join("a", Moment(1001, 0, 1), samples=50))
    aggregator.hear("a", Status(MARK, True, 0, Moment(1001, 0, 2)))
    aggregator.hear("a", Status(MARK, False, 0, Moment(1001, 0, 3)))
    for cannot in ("", "another bundle"):
        (answer,) = aggregator.hear("a", join("a", Moment(1000, 9, 9), samples=10**9, cannot=cannot))
        assert (answer.accepted, answer.moment) == (False, Moment(1000, 9, 9))
        assert answer.latest == Moment(1001, 0, 3)
    assert samples_of(aggregator, "a") == 50
    assert aggregator.coordinator.unable == {}
    assert not aggregator.rounds.present("a")


def test_the_newest_join_is_answered_alike_as_often_as_the_broker_delivers_it(aggregator):
    newest = join("a", Moment(1001, 0, 1))
    answers = [aggregator.hear("a", newest, 0.0) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert (answers[0][0].accepted, answers[0][0].latest) == (True, None)
    aggregator.tick(500.0)
    aggregator.hear("a", newest, 500.0)
    assert not aggregator.rounds.present("a")


def test_an_answer_is_bound_to_its_join_and_names_the_newest_revision(aggregator):
    aggregator.coordinator.revise(0.0, rounds=5)
    answer, plan = aggregator.hear("a", join("a", Moment(1001, 0, 1)))
    assert (answer.moment, answer.revision) == (Moment(1001, 0, 1), 2)
    assert plan == aggregator.coordinator.plan
    (answer,) = aggregator.hear("a", join("a", Moment(1001, 0, 2)), 1.0)  # it was published this moment
    (answer,) = aggregator.hear("a", join("a", Moment(1001, 0, 3), revision=2), 100.0)


def test_a_receipt_bears_the_mark_of_the_update_that_it_answers(aggregator):
    refused = Update(1, 100, delta(1e6), 0)
    counted = Update(1, 100, delta(), 1)
    assert [message.mark for message in aggregator.hear("a", refused)] == [refused.mark]
    assert [message.mark for message in aggregator.hear("a", counted)] == [counted.mark]
    (receipt,) = aggregator.hear("a", refused)  # an update of this round counts already
    assert (receipt.accepted, receipt.mark) == (True, refused.mark)
    marks = {msgspec.structs.replace(counted, **change).mark for change in
             ({}, {"round_number": 2}, {"samples": 5}, {"attempt": 2}, {"payload": b""})}  # fmt: skip
    assert len(marks) == 5


def test_an_earlier_attempt_takes_no_upload_of_a_later_one_away(aggregator):
    update, blocks = large_update(1)
    later = msgspec.structs.replace(update, attempt=1)
    aggregator.hear("a", later)
    aggregator.hear("a", blocks[0])
    assert aggregator.hear("a", update) == []
    for block in blocks[1:]:
        answer = aggregator.hear("a", block)
    assert answer[0].mark == later.mark
    assert answer[0].accepted


def listed(**sites):
    settings = msgspec.structs.replace(SETTINGS, enrolment="listed")
    return AggregatorConfiguration(settings, sites={site: key.hex() for site, key in sites.items()})


def reconfigure(aggregator, configuration):
    before = aggregator.coordinator._run.configuration
    return [item.message for item in aggregator.coordinator.reconfigure(before, configuration, 0.0)]


KEYS = {site: key.public_key for site, key in SITE_KEYS.items()}


def test_a_site_that_is_taken_off_the_list_is_refused_at_its_next_message(aggregator, caplog):
    aggregator.hear("c", join("c", Moment(1, 0, 1)))
    reconfigure(aggregator, listed(**KEYS))
    aggregator.deliver(1, "a")
    reconfigure(aggregator, listed(b=KEYS["b"], c=KEYS["c"]))
    assert aggregator.rounds.members == {"b", "c"}
    assert aggregator.store.stored_updates() == []
    (receipt,) = aggregator.deliver(1, "a", value=0.02)
    assert (receipt.accepted, receipt.closed) == (False, False)
    assert receipt.reason == "'a' was taken off the aggregator's list"
    (answer,) = aggregator.hear("a", join("a", Moment(2000, 0, 1)))
    assert (answer.accepted, aggregator.store.stored_updates()) == (False, [])
    aggregator.say("a", version=5)
    assert aggregator.rounds.members == {"b", "c"}
    assert aggregator.tick(1.0) == []  # nor is it asked for its version
    aggregator.deliver(1, "b", "c")
    assert aggregator.version == 1  # nobody waits for it
    aggregator.start()  # with an open list again: it is a member, and was never away
    assert aggregator.rounds.members == {"a", "b", "c"}


def test_a_site_that_is_back_on_the_list_takes_part_again(aggregator):
    reconfigure(aggregator, listed(b=KEYS["b"]))
    reconfigure(aggregator, listed(**KEYS))
    assert aggregator.rounds.members == {"a", "b"}
    assert [receipt.accepted for receipt in aggregator.deliver(1, "a")] == [True]


def test_a_key_that_is_changed_in_the_list_takes_the_name_over(aggregator):
    new, topic = new_signing_key(), topics.up(FEDERATION, "a")
    aggregator.deliver(1, "a")
    reconfigure(aggregator, listed(a=new.public_key, b=KEYS["b"]))
    assert aggregator.store.stored_updates() == []
    (receipt,) = aggregator.deliver(1, "a")
    assert receipt.reason == "'a' has another key on the aggregator's list"
    (answer,) = aggregator.hear("a", join("a", Moment(2000, 0, 1)))
    assert not answer.accepted
    said = Join(new.public_key, BUNDLE, 7, 0, "", "", Moment(5, 0, 1), 1)
    (answer,) = aggregator.coordinator.receive(topic, seal(said, topic, new, PLAN.identity), 0.0)
    assert answer.message.accepted
    assert (aggregator.store.sites()["a"], samples_of(aggregator, "a")) == (new.public_key, 7)
    status, topic = Status(MARK, True, 0, Moment(9000, 0, 1)), topics.status(FEDERATION, "a")
    aggregator.coordinator.receive(topic, seal(status, topic, SITE_KEYS["a"], NO_IDENTITY), 0.0)
    assert aggregator.coordinator.refused_messages["a"] == 2


def test_an_update_of_who_was_taken_off_while_the_aggregator_was_away_does_not_count(tmp_path):
    aggregator = Aggregator(tmp_path)
    aggregator.join("a", "b")
    aggregator.deliver(1, "a")
    aggregator.settings = msgspec.structs.replace(SETTINGS, enrolment="listed")
    aggregator.start()
    assert (aggregator.rounds.members, aggregator.store.stored_updates()) == (frozenset(), [])
    aggregator.store.close()


def test_nothing_of_an_update_under_way_is_kept_of_who_is_let_go(aggregator):
    update, blocks = large_update(1)
    aggregator.hear("a", update)
    aggregator.hear("a", blocks[0])
    reconfigure(aggregator, listed(b=KEYS["b"]))
    assert aggregator.store.uploads() == {}
    assert aggregator.hear("a", blocks[1]) == []
