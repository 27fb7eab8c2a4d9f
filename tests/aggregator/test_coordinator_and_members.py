"""The aggregator with sites that keep to the protocol: rounds, changes of the run, state that was lost."""

from dataclasses import dataclass, field
from unittest.mock import ANY

import msgspec
import numpy as np
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.floods import STRANGERS
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.progress import DROPPED
from fedmedclip.aggregator.store import Store, StoredHead, StoredVersion
from fedmedclip.aggregator.uploads import ASK_AGAIN_SECONDS
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.evidence import Evidence, encode_evidence
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import (
    Abstain,
    Announcement,
    Block,
    BlockRequest,
    HeadRequest,
    Join,
    JoinAnswer,
    Plan,
    Receipt,
    Snapshot,
    State,
    StateRequest,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.plan_words import MORE_ROUNDS
from fedmedclip.protocol.signature import fingerprint, new_signing_key
from tests.protocol.moments import a_moment

FEDERATION, BUNDLE, LARGE, SMALL = "trial", b"b" * 32, 1 << 17, 1024 + 128
KEY = new_signing_key()
SITE_KEYS = {site: new_signing_key() for site in "abc"}
SPECIFICATION = shared_head_specification("fedmedclip", 16)
FIRST = initial_shared_head("fedmedclip", 16, 1)
PLAN = Plan(
    b"i" * 16, KEY.public_key, "fedmedclip", BUNDLE, 16, 3, 1, "int8", "int8", {}, 1, 1, False, 1e3, None,
)  # fmt: skip
SETTINGS = FederationSettings(
    FEDERATION, "unused", 3, minimum_sites=2, round_timeout_seconds=100.0, lease_seconds=500.0,
    keep_megabytes=1,
)  # fmt: skip


def delta(value=0.01):
    values = {name: np.full_like(array, value) for name, array in FIRST.items()}
    return encode_head(codec_named("int8"), values, SPECIFICATION).data


def large_update(round_number):
    data = encode_head(codec_named("lossless"), SPECIFICATION.initial(5), SPECIFICATION).data
    update = Update(round_number, 100, refer_to(data, SMALL), 0)
    return update, list(blocks_of(data, update.payload))


@dataclass
class Aggregator:
    """A coordinator, its store, and sites with keys of their own."""

    folder: object
    codec: str = "int8"
    limit: int = LARGE
    settings: FederationSettings = SETTINGS
    wall_clock: float = 0.0
    sent: list = field(default_factory=list)

    def __post_init__(self):
        self.store = Store(self.folder / "aggregator.db", durable=False)
        self.store.begin(PLAN, SPECIFICATION.to_bytes(FIRST), head_digest(FIRST))
        self.start()

    def start(self, now=0.0):
        plan = self.store.plan()
        head = GlobalHead(self.store, SPECIFICATION, self.codec, plan.rounds, self.limit)
        configuration = AggregatorConfiguration(self.settings)
        self.coordinator = Coordinator(
            configuration, plan, self.store, head, now, wall_clock=lambda: self.wall_clock
        )

    @property
    def version(self):
        return self.coordinator.global_head.version

    @property
    def rounds(self):
        return self.coordinator.rounds

    def hear(self, site, message, now=0.0):
        """Receive a message of a site; return the messages of the answer, and keep them with their topics."""
        status = isinstance(message, Status)
        topic = topics.status(FEDERATION, site) if status else topics.up(FEDERATION, site)
        payload = seal(message, topic, SITE_KEYS[site], NO_IDENTITY if status else PLAN.identity)
        self.sent = self.coordinator.receive(topic, payload, now)
        return [item.message for item in self.sent]

    def tick(self, now):
        self.sent = self.coordinator.tick(now)
        return [item.message for item in self.sent]

    def join(self, *sites, version=-1, cannot="", now=0.0):
        for site in sites:
            answer = self.hear(
                site, Join(SITE_KEYS[site].public_key, BUNDLE, 100, version, "", cannot, a_moment(), 1), now
            )
        return answer

    def say(self, site, *, online=True, version=0, now=0.0):
        return self.hear(
            site, Status(fingerprint(SITE_KEYS[site].public_key), online, version, a_moment()), now
        )

    def deliver(self, round_number, *sites, now=0.0, value=0.01):
        for site in sites:
            answer = self.hear(site, Update(round_number, 100, delta(value), 0), now)
        return answer

    def play_to(self, version, now=0.0):
        while self.version < version:
            self.deliver(self.version + 1, "a", "b", now=now)


@pytest.fixture
def aggregator(tmp_path):
    aggregator = Aggregator(tmp_path)
    aggregator.join("a", "b")
    yield aggregator
    aggregator.store.close()


def kinds(messages):
    return [type(message).__name__ for message in messages]


def test_plan_and_newest_head_are_retained_for_every_site(aggregator):
    plan, head = aggregator.coordinator.opening()
    assert (plan.topic, plan.message, plan.retain) == (topics.plan(FEDERATION), PLAN, True)
    assert (head.topic, head.retain) == (topics.head(FEDERATION), True)
    assert head.message == Announcement(0, head_digest(FIRST), False, None, None)


def test_a_site_is_admitted_with_an_answer_of_its_own(aggregator):
    (answer,) = aggregator.join("c")
    assert answer == JoinAnswer(fingerprint(SITE_KEYS["c"].public_key), True, "", ANY, None, 1)
    assert [(item.topic, item.retain) for item in aggregator.sent] == [(topics.down(FEDERATION, "c"), False)]
    assert aggregator.rounds.awaited == ("a", "b", "c")
    assert set(aggregator.store.sites()) == {"a", "b", "c"}


def test_the_last_update_of_a_round_makes_the_next_version(aggregator):
    assert aggregator.deliver(1, "a") == [Receipt(1, True, "", False, ANY)]
    receipt, announced = aggregator.deliver(1, "b")
    assert receipt == Receipt(1, True, "", False, ANY)
    assert (announced.version, announced.finished) == (1, False)
    assert [(item.topic, item.retain) for item in aggregator.sent] == [
        (topics.down(FEDERATION, "b"), False), (topics.head(FEDERATION), True),
    ]  # fmt: skip
    assert (aggregator.version, aggregator.rounds.version, aggregator.rounds.delivered) == (1, 1, ())
    aggregator.play_to(3)
    assert aggregator.coordinator.opening()[1].message.finished
    (receipt,) = aggregator.deliver(4, "a")
    assert (receipt.accepted, receipt.closed) == (False, False)
    assert receipt.reason == "no round is open: version 3 is the last"


def test_a_large_version_is_announced_with_its_blocks(tmp_path):
    aggregator = Aggregator(tmp_path, codec="lossless", limit=SMALL)
    aggregator.join("a", "b")
    update, blocks = large_update(1)
    aggregator.deliver(1, "a")
    aggregator.hear("b", update)
    for block in blocks:
        answer = aggregator.hear("b", block)
    receipt, announced, *sent = answer
    assert (receipt.accepted, announced.version) == (True, 1)
    assert len(sent) > 1
    assert {item.topic for item in aggregator.sent[2:]} == {topics.blocks(FEDERATION)}
    assert not any(item.retain for item in aggregator.sent[2:])
    assert aggregator.hear("a", BlockRequest(announced.payload.digest, [1])) == [sent[1]]
    snapshot, *sent = aggregator.hear("a", HeadRequest(-1))
    assert isinstance(snapshot, Snapshot)
    assert sent
    assert all(isinstance(block, Block) for block in sent)


def test_what_was_delivered_before_a_restart_counts(aggregator):
    aggregator.play_to(1)
    aggregator.deliver(2, "a")
    aggregator.start()
    assert aggregator.rounds.delivered == ("a",)
    assert aggregator.deliver(2, "a") == [Receipt(2, True, "", False, ANY)]
    assert (aggregator.rounds.awaited, aggregator.version) == (("b",), 1)
    aggregator.deliver(2, "b")
    assert aggregator.version == 2


def test_an_update_of_a_closed_round_neither_counts_in_the_open_one_nor_excuses_from_it(aggregator):
    aggregator.join("c")
    aggregator.deliver(1, "a", "b")
    aggregator.say("c", online=False)
    assert aggregator.version == 1
    aggregator.say("c")
    assert aggregator.deliver(1, "a") == [Receipt(1, True, "", False, ANY)]
    (receipt,) = aggregator.deliver(1, "c")
    assert receipt == Receipt(1, False, "round 1 is closed; version 1 is the newest", True, ANY)
    assert (aggregator.rounds.delivered, aggregator.rounds.awaited) == ((), ("a", "b", "c"))


def test_a_refused_update_excuses_its_site(aggregator):
    aggregator.join("c")
    aggregator.deliver(1, "a", "b")
    receipt, *_ = aggregator.deliver(1, "c", value=1e6)
    assert (receipt.accepted, receipt.closed) == (False, False)
    assert "at most 1e+03 counts" in receipt.reason
    assert aggregator.version == 1


def test_who_abstains_from_the_open_round_is_not_waited_for(aggregator):
    aggregator.join("c")
    aggregator.deliver(1, "a", "b")
    for other in (2, 3):
        assert aggregator.hear("c", Abstain(other, "one image")) == []
    assert aggregator.version == 0
    aggregator.hear("c", Abstain(1, "one image"))
    assert aggregator.version == 1
    aggregator.hear("c", Abstain(2, "one image"))
    assert aggregator.rounds.excused() == {"c": "it abstained: one image"}


def test_who_leaves_is_not_waited_for_and_whoever_says_or_delivers_something_new_is_there(aggregator):
    aggregator.say("a", online=False)
    assert not aggregator.rounds.present("a")
    aggregator.say("a")
    assert aggregator.rounds.present("a")
    aggregator.tick(499.0)
    assert aggregator.rounds.present("a")
    aggregator.tick(500.0)
    assert not aggregator.rounds.present("a")
    aggregator.deliver(1, "a", now=500.0)
    assert aggregator.rounds.present("a")


def test_what_may_be_a_copy_of_something_earlier_does_not_show_that_a_site_is_there(aggregator):
    update, blocks = large_update(1)
    aggregator.hear("a", update)
    aggregator.hear("a", blocks[0])
    aggregator.say("a", online=False)
    for copy in (update, blocks[0], HeadRequest(0), BlockRequest(bytes(32), [1]), Abstain(1, "")):
        aggregator.hear("a", copy)
        assert not aggregator.rounds.present("a")
    aggregator.hear("a", blocks[1])
    assert aggregator.rounds.present("a")


def test_a_member_that_cannot_take_part_is_not_waited_for_until_it_joins_again(aggregator, caplog):
    assert aggregator.join("a", cannot="another bundle") == []
    assert not aggregator.rounds.present("a")
    aggregator.say("a")
    aggregator.hear("a", HeadRequest(0))
    assert not aggregator.rounds.present("a")
    aggregator.join("a")
    assert aggregator.rounds.present("a")
    assert aggregator.join("c", cannot="another bundle") == []
    assert "c" not in aggregator.rounds.members
    assert "c (software ?) cannot take part: another bundle" in caplog.text


def test_a_stranger_cannot_say_in_a_members_name_that_it_cannot_take_part(aggregator):
    stranger, topic = new_signing_key(), topics.up(FEDERATION, "a")
    join = Join(stranger.public_key, BUNDLE, 100, -1, "", "no", a_moment(), 1)
    (answer,) = aggregator.coordinator.receive(topic, seal(join, topic, stranger, PLAN.identity), 0.0)
    assert not answer.message.accepted
    assert aggregator.rounds.present("a")
    assert aggregator.store.sites()["a"] == SITE_KEYS["a"].public_key


def test_refused_messages_are_counted_for_each_member_and_for_all_strangers_together(aggregator):
    assert aggregator.hear("c", HeadRequest(0)) == []
    for _ in range(2):
        aggregator.hear("a", Receipt(1, True, "", False, bytes(8)))
    assert aggregator.coordinator.refused_messages == {"a": 2, STRANGERS: 1}


def test_a_run_is_settled_when_every_site_that_is_there_holds_the_last_version(aggregator):
    aggregator.join("c")
    aggregator.say("c", online=False)
    for site in "ab":
        aggregator.say(site, version=3)
    assert not aggregator.coordinator.settled
    aggregator.play_to(3)
    assert not aggregator.coordinator.settled
    aggregator.say("a", version=3)
    assert not aggregator.coordinator.settled
    aggregator.hear("b", HeadRequest(3))
    assert aggregator.coordinator.settled
    aggregator.say("c", version=2)
    assert not aggregator.coordinator.settled
    aggregator.join("c", version=3)
    assert aggregator.coordinator.settled


def test_a_change_is_told_stored_and_numbered_by_the_clock(aggregator):
    coordinator = aggregator.coordinator
    assert coordinator.revise(0.0) == coordinator.revise(0.0, rounds=3, paused=False) == []
    plan, head = (item.message for item in coordinator.revise(0.0, rounds=5, maximum_update_norm=7.0))
    assert (plan.rounds, plan.maximum_update_norm, plan.paused, plan.revision) == (5, 7.0, False, 2)
    assert isinstance(head, Announcement)
    assert aggregator.store.plan() == coordinator.plan == plan
    aggregator.wall_clock = 1000.9
    coordinator.revise(0.0, rounds=6)
    assert coordinator.plan.revision == 1000
    coordinator.revise(0.0, rounds=7)
    assert coordinator.plan.revision == 1001
    aggregator.play_to(7)
    assert coordinator.global_head.finished


def test_a_pause_holds_a_round_open_and_its_end_closes_it_at_once(aggregator):
    aggregator.coordinator.revise(0.0, paused=True)
    aggregator.deliver(1, "a", "b")
    assert aggregator.version == 0
    sent = [item.message for item in aggregator.coordinator.revise(1.0, paused=False)]
    assert kinds(sent) == ["Plan", "Announcement", "Announcement"]
    assert aggregator.version == 1


def test_a_rollback_is_a_version_above_all_that_is_known_with_as_many_rounds_to_go(aggregator):
    coordinator = aggregator.coordinator
    aggregator.play_to(2)
    coordinator.revise(0.0, rounds=5)
    update, _ = large_update(3)
    aggregator.hear("b", update)
    aggregator.deliver(3, "a")
    aggregator.say("a", version=6)
    sent = [item.message for item in coordinator.roll_back(0, 1.0)]
    assert aggregator.version == 7
    assert coordinator.global_head.digest == head_digest(FIRST)
    assert sent[0].rounds == 5 + 7 - 2
    assert Announcement(7, head_digest(FIRST), False, None, None) in sent
    assert (aggregator.rounds.version, aggregator.rounds.delivered) == (7, ())
    # Nobody is asked for what was lost, or for blocks of a round that is over.
    assert aggregator.tick(100.0) == []


def test_a_rollback_before_the_first_round_is_version_1(aggregator):
    aggregator.coordinator.roll_back(0, 0.0)
    assert (aggregator.version, aggregator.coordinator.plan.rounds) == (1, 4)


def test_a_member_is_left_out_of_the_open_round_only(aggregator):
    aggregator.join("c")
    aggregator.deliver(1, "a", "b")
    with pytest.raises(InvalidInputError, match="'d' is no member; members are a, b, c"):
        aggregator.coordinator.leave_out("d", 0.0)
    sent = aggregator.coordinator.leave_out("c", 0.0)
    assert kinds(item.message for item in sent) == ["Announcement"]
    assert aggregator.rounds.awaited == ("a", "b", "c")


def test_what_was_edited_is_taken_over_and_what_was_not_stays(aggregator):
    coordinator, before = aggregator.coordinator, AggregatorConfiguration(SETTINGS)
    coordinator.revise(0.0, rounds=9, maximum_update_norm=5.0)

    def edit(**changes):
        edited = AggregatorConfiguration(msgspec.structs.replace(SETTINGS, **changes))
        return [item.message for item in coordinator.reconfigure(before, edited, 60.0)]

    assert edit(lease_seconds=600.0) == []
    assert (coordinator.plan.rounds, coordinator.plan.maximum_update_norm) == (9, 5.0)
    edit(rounds=7)
    assert (coordinator.plan.rounds, coordinator.plan.maximum_update_norm) == (7, 5.0)
    edit(maximum_update_norm=8.0)
    assert (coordinator.plan.rounds, coordinator.plan.maximum_update_norm) == (7, 8.0)
    with pytest.raises(InvalidInputError, match="a federation keeps its name: 'trial'"):
        edit(name="another")
    aggregator.join("c")
    aggregator.deliver(1, "a", "b")
    assert aggregator.version == 0
    assert kinds(edit(round_timeout_seconds=50.0)) == ["Announcement"]
    assert aggregator.version == 1


def test_a_round_that_takes_too_long_is_closed_and_what_was_under_way_forgotten(aggregator):
    aggregator.join("c")
    update, _ = large_update(1)
    aggregator.hear("c", update, now=95.0)
    aggregator.deliver(1, "a", "b", now=10.0)
    assert aggregator.tick(109.0) == []
    assert kinds(aggregator.tick(110.0)) == ["Announcement"]
    aggregator.say("c", now=111.0)
    assert aggregator.tick(200.0) == []


def test_too_few_updates_are_complained_of_with_the_reasons(aggregator, caplog):
    aggregator.join("c")
    aggregator.deliver(1, "a")
    aggregator.tick(100.0)
    assert "round 1: time is over, but only 1 of at least 2 sites have delivered" in caplog.text
    assert aggregator.version == 0


def test_blocks_that_stay_away_are_asked_for_of_sites_that_are_there(aggregator):
    update, (first, *rest) = large_update(1)
    aggregator.hear("a", update)
    aggregator.hear("b", update)
    aggregator.hear("a", first, now=5.0)
    aggregator.say("b", online=False, now=5.0)
    asked = BlockRequest(update.payload.digest, [block.index for block in rest])
    assert aggregator.tick(5.0 + ASK_AGAIN_SECONDS) == [asked]
    assert [item.topic for item in aggregator.sent] == [topics.down(FEDERATION, "a")]


def test_requests_are_answered_and_what_is_not_here_costs_nobody(aggregator):
    assert aggregator.hear("a", HeadRequest(0)) == [Announcement(0, head_digest(FIRST), False, None, None)]
    assert aggregator.hear("a", BlockRequest(bytes(32), [0])) == []
    aggregator.play_to(2)
    assert [answer.version for answer in aggregator.hear("a", HeadRequest(0))] == [1, 2]


def test_old_changes_are_dropped_beyond_the_megabytes_that_are_kept(aggregator):
    head = StoredHead(SPECIFICATION.to_bytes(FIRST), None, b"")
    for version in (1, 2):
        aggregator.store.advance(StoredVersion(version, head_digest(FIRST), bytes(600_000)), head)
    aggregator.start()
    aggregator.deliver(3, "a", "b")
    assert [stored.version for stored in aggregator.store.versions_after(-1)] == [3]


LOST = SPECIFICATION.initial(44)


def evidence(version, head=LOST, **changes):
    """Return what a site proves: `version`, under a plan that may have been changed since."""
    plan_topic, topic = topics.plan(FEDERATION), topics.head(FEDERATION)
    plan = msgspec.structs.replace(PLAN, **changes)
    carrier = seal(Announcement(version, head_digest(head), False, None, None), topic, KEY, plan.identity)
    sealed_plan = seal(plan, plan_topic, KEY, NO_IDENTITY)
    return encode_evidence(Evidence(sealed_plan, topic, carrier, SPECIFICATION.to_bytes(head)))


def test_state_that_was_lost_is_taken_back_with_the_plan_of_then(aggregator):
    update, _ = large_update(1)
    aggregator.hear("b", update)
    aggregator.deliver(1, "a")
    aggregator.say("a", version=3)
    aggregator.say("b", version=4)
    assert aggregator.tick(1.0) == [StateRequest(0)]
    assert [item.topic for item in aggregator.sent] == [topics.down(FEDERATION, "b")]
    plan, announced = aggregator.hear("b", State(evidence(4, rounds=9, revision=5)), now=2.0)
    assert (plan.rounds, plan.revision) == (9, 5)
    assert aggregator.store.plan() == plan
    assert announced == Announcement(4, head_digest(LOST), False, None, None)
    assert (aggregator.rounds.version, aggregator.rounds.delivered) == (4, ())
    assert aggregator.tick(100.0) == []
    aggregator.play_to(9, now=100.0)
    assert aggregator.coordinator.global_head.finished


def test_it_may_come_in_blocks(aggregator):
    aggregator.say("a", version=4)
    aggregator.tick(1.0)
    data = evidence(4)
    reference = refer_to(data, SMALL)
    assert aggregator.hear("a", State(reference)) == []
    *earlier, last = blocks_of(data, reference)
    for block in earlier:
        assert aggregator.hear("a", block) == []
    assert kinds(aggregator.hear("a", last)) == ["Plan", "Announcement"]
    assert aggregator.version == 4


@pytest.mark.parametrize("revision", [1, 2, 3])
def test_of_two_plans_of_a_run_the_later_stands(aggregator, revision):
    aggregator.coordinator.revise(0.0, rounds=8)  # revision 2
    aggregator.say("a", version=4)
    aggregator.tick(1.0)
    aggregator.hear("a", State(evidence(4, rounds=9, revision=revision)))
    assert aggregator.version == 4
    assert aggregator.coordinator.plan.rounds == (9 if revision == 3 else 8)


def test_what_proves_no_newer_version_changes_nothing(aggregator):
    aggregator.play_to(2)
    digest = aggregator.coordinator.global_head.digest
    for version in (1, 2):
        aggregator.say("a", version=3)
        aggregator.tick(1.0)
        assert aggregator.hear("a", State(evidence(version, rounds=9, revision=1))) == []
        assert aggregator.coordinator.global_head.digest == digest
        assert aggregator.coordinator.plan == PLAN


def test_what_its_operator_decides_does_not_bring_a_dropped_site_back_into_the_round(aggregator):
    aggregator.coordinator.drop("a", 0.0)
    aggregator.hear("a", Abstain(1, f"{MORE_ROUNDS} 0 rounds; its operator has not approved more yet"))
    assert aggregator.rounds.excused()["a"] == DROPPED
    aggregator.deliver(1, "b")
    assert aggregator.version == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_later_plan_is_taken_back_from_whoever_has_no_newer_version(aggregator, version):
    aggregator.play_to(2)
    digest = aggregator.coordinator.global_head.digest
    aggregator.say("a", version=3)
    aggregator.tick(1.0)
    plan, announced = aggregator.hear("a", State(evidence(version, rounds=9, revision=9)))
    assert (plan.rounds, plan.revision) == (9, 9)
    assert announced.head_digest == aggregator.coordinator.global_head.digest == digest
    assert aggregator.store.plan() == plan


def test_a_plan_alone_is_taken_back_and_one_that_nobody_signed_is_not(aggregator):
    plan = msgspec.structs.replace(PLAN, rounds=9, revision=9)
    for key, taken in ((new_signing_key(), False), (KEY, True)):
        aggregator.say("a", version=3)
        aggregator.tick(1.0)
        sealed = seal(plan, topics.plan(FEDERATION), key, NO_IDENTITY)
        aggregator.hear("a", State(encode_evidence(Evidence(sealed, "", b"", b""))))
        assert (aggregator.coordinator.plan == plan) is taken


def test_the_state_of_another_run_is_refused(aggregator, caplog):
    aggregator.say("a", version=4)
    aggregator.tick(1.0)
    assert aggregator.hear("a", State(evidence(4, identity=b"j" * 16, number=2))) == []
    assert "it follows run 2, this aggregator's state is of run 1; restore a newer backup" in caplog.text
    assert aggregator.version == 0


def test_an_update_of_a_later_round_shows_that_state_was_lost_and_one_of_the_open_round_that_not(aggregator):
    assert aggregator.deliver(3, "a") == []
    aggregator.deliver(1, "a")
    assert aggregator.tick(1.0) == []
    assert aggregator.deliver(3, "b") == []
    assert aggregator.tick(2.0) == [StateRequest(0)]
    assert [item.topic for item in aggregator.sent] == [topics.down(FEDERATION, "b")]


def test_a_join_shows_which_version_is_there(aggregator):
    aggregator.join("c", version=2)
    assert aggregator.tick(1.0) == [StateRequest(0)]


def test_answers_wait_for_room(aggregator):
    room = []
    aggregator.coordinator._has_room = lambda: bool(room)
    assert aggregator.hear("a", HeadRequest(0)) == []
    room.append(True)
    assert kinds(aggregator.tick(1.0)) == ["Announcement"]
