"""One site and the messages of its aggregator, signed: what it answers, trains and tells its learner."""

import tracemalloc
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.delivery import RETRY_SECONDS
from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta, norm_of
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.evidence import decode_evidence
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.messages import (
    Abstain,
    Announcement,
    BlockRequest,
    HeadRequest,
    Join,
    JoinAnswer,
    Moment,
    Plan,
    Receipt,
    Snapshot,
    State,
    StateRequest,
    Update,
)
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.participation import lot_of
from fedmedclip.protocol.signature import fingerprint, new_signing_key
from tests.simulation.federation.loopback import BUNDLE, FEDERATION, DriftingLearner

SITE_KEY, KEY = new_signing_key(), new_signing_key()
SIZE, LARGE, SMALL = 16, 1 << 17, 1024 + 128
SPECIFICATION = shared_head_specification("fedmedclip", SIZE)
PLAN = Plan(
    b"i" * 16, KEY.public_key, "fedmedclip", BUNDLE, SIZE, 3, 11, "int8", "int8", {}, 1, 1, False, 1e3, None,
)  # fmt: skip
FIRST = initial_shared_head("fedmedclip", SIZE, 11)
IDENTITY = Identity(FEDERATION, "site-a", SITE_KEY.public_key, BUNDLE, None, None, SIZE)


class Learner(DriftingLearner):
    """Says what it was told of, and fails when a test wants it to."""

    def __init__(self):
        super().__init__("site-a", 100)
        self.told = []
        self.failure = None

    def train(self, plan, shared, private, round_number):
        if self.failure is not None:
            raise self.failure
        return super().train(plan, shared, private, round_number)

    def installed(self, plan, version, shared, private, finished):
        self.told.append((plan.number, version, finished))
        super().installed(plan, version, shared, private, finished)


@dataclass
class Site:
    """An agent, and an aggregator that says what a test wants."""

    folder: object
    codec: str | None = None
    limit: int = LARGE
    identity: Identity = IDENTITY

    def __post_init__(self):
        self.plan, self.learner, self.head, self.version = PLAN, Learner(), FIRST, 0
        self.start()

    def start(self):
        self.state = SiteState(self.folder / "site.db", durable=False)
        self.agent = SiteAgent(self.identity, self.state, self.learner, self.limit, self.codec)
        self.agent.connected()

    def hear(self, message, now=0.0, topic=None, key=KEY):
        topic = topic or topics.down(FEDERATION, "site-a")
        return self.agent.receive(topic, seal(message, topic, key, self.plan.identity), now)

    def hear_plan(self, now=0.0, key=KEY, **changes):
        plan = msgspec.structs.replace(self.plan, **changes)
        payload = seal(plan, topics.plan(FEDERATION), key, NO_IDENTITY)
        answers = self.agent.receive(topics.plan(FEDERATION), payload, now)
        if self.agent.plan_identity == plan.identity:
            self.plan = plan
        return answers

    def join(self, now=0.0, **changes):
        """Hear the plan, be admitted, and read the newest version that the broker retains."""
        self.hear_plan(now, **changes)
        self.admit(now)
        self.hear_newest(now)

    def hear_newest(self, now=0.0):
        newest = Announcement(self.version, head_digest(self.head), False, None, None)
        assert self.hear(newest, now, topics.head(FEDERATION)) == []

    def admit(self, now=0.0):
        answers = self.answer(now)
        assert self.agent.joined
        return answers

    def answer(self, now=0.0, accepted=True, reason="", **changes):
        """Answer the newest Join."""
        asked = self.agent._application.asked
        answer = JoinAnswer(
            fingerprint(SITE_KEY.public_key), accepted, reason, asked, None, self.plan.revision
        )
        return self.hear(msgspec.structs.replace(answer, **changes), now)

    def announcement(self, delta=0.01):
        """Make the next version, and return its announcement."""
        values = {name: np.full_like(array, delta) for name, array in self.head.items()}
        encoded = encode_head(codec_named("lossless"), values, SPECIFICATION).data
        self.head = apply_delta(self.head, values, SPECIFICATION)
        self.version += 1
        finished = self.version >= self.plan.rounds
        return Announcement(self.version, head_digest(self.head), finished, refer_to(encoded, LARGE), None)

    def advance(self, now=0.0):
        """Hear of the next version."""
        return self.hear(self.announcement(), now, topics.head(FEDERATION))

    def snapshot(self):
        encoded = encode_head(codec_named("lossless"), self.head, SPECIFICATION).data
        return Snapshot(self.version, head_digest(self.head), False, refer_to(encoded, LARGE), None)

    def settle(self, round_number, accepted=True, now=0.0):
        reason = "" if accepted else "norm"
        return self.hear(Receipt(round_number, accepted, reason, False, self.mark()), now)

    def mark(self):
        """The mark of the update that is under way, if one is."""
        if (owed := self.state.outgoing_update()) is None:
            return bytes(8)
        payload = refer_to(owed.payload, self.limit)
        return Update(owed.round_number, owed.samples, payload, owed.attempt).mark


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def rounds_in(messages):
    return [message.round_number for message in messages if isinstance(message, Update)]


def test_before_its_first_plan_a_site_is_silent(site):
    agent = site.agent
    assert (agent.version, agent.joined, agent.finished) == (-1, False, False)
    assert agent.plan_identity == NO_IDENTITY
    assert agent.tick(0.0) == []
    assert site.hear(Receipt(1, True, "", False, bytes(8))) == []
    assert site.hear(StateRequest(3)) == []
    assert (agent.refused_messages, site.learner.told) == (0, [])


def test_a_site_joins_trains_and_delivers(site):
    (join,) = site.hear_plan()
    assert isinstance(join, Join)
    assert (join.public_key, join.bundle_digest, join.samples) == (SITE_KEY.public_key, BUNDLE, 100)
    assert (join.version, join.cannot) == (-1, "")
    assert site.agent.plan_identity == PLAN.identity
    assert site.agent.tick(1.0) == []  # it was asked this moment
    assert site.learner.trained == []
    site.admit(1.0)
    assert site.agent.tick(1.0) == []  # it does not know yet whether it is drawn
    site.hear_newest(1.0)
    (update,) = site.agent.tick(1.0)
    assert (update.round_number, update.samples) == (1, 100)
    assert site.learner.trained == [1]
    assert set(site.learner.shares) == {1}
    sent = decode_head(update.payload, SPECIFICATION)
    drift = norm_of(sent)
    assert 0 < drift < 1
    assert site.learner.told == [(1, 0, False)]


def test_a_delivered_round_is_not_trained_twice_and_the_next_follows_its_version_at_once(site):
    site.join()
    assert rounds_in(site.agent.tick(0.0)) == [1]
    assert site.agent.tick(1.0) == []
    assert rounds_in(site.agent.tick(ASK_AGAIN_SECONDS)) == [1]
    site.settle(1)
    # It had no answer for so long that it also joins once more.
    assert [type(message) for message in site.agent.tick(21.0)] == [Join]
    assert site.advance(22.0) == []
    assert rounds_in(site.agent.tick(22.0)) == [2]
    assert site.learner.trained == [1, 2]
    assert site.learner.told == [(1, 0, False), (1, 1, False)]


def test_a_round_is_not_trained_while_the_update_of_the_one_before_is_not_settled(site):
    site.join()
    site.agent.tick(0.0)
    site.advance(1.0)
    assert rounds_in(site.agent.tick(2.0)) == []
    site.settle(1, now=3.0)
    assert rounds_in(site.agent.tick(3.0)) == [2]


def test_the_last_version_ends_the_run(site):
    site.join()
    for version in (1, 2, 3):
        assert not site.agent.finished
        assert rounds_in(site.agent.tick(version)) == [version]
        site.settle(version)
        site.advance(version)
    assert site.agent.finished
    assert site.learner.told[-1] == (1, 3, True)
    assert site.agent.tick(1000.0) == [HeadRequest(3)]  # for news, after so long a silence
    assert site.learner.trained == [1, 2, 3]


def test_a_site_that_is_killed_goes_on_where_it_was(site):
    site.join()
    (update,) = site.agent.tick(0.0)
    site.start()
    assert site.learner.told == [(1, 0, False)] * 2
    assert (site.agent.version, site.agent.plan_identity) == (0, PLAN.identity)
    (join,) = site.agent.tick(100.0)
    assert isinstance(join, Join)
    site.admit(100.0)
    site.hear_newest(100.0)
    assert site.agent.tick(100.0) == [update]
    assert site.learner.trained == [1]


def test_a_run_of_another_version_of_its_method_is_declined_and_the_next_is_followed(site, caplog):
    """Else it would be waited for in each round, while it can read nothing that it is sent."""
    site.join()
    site.agent.tick(0.0)
    specification = site.learner.private_specification(PLAN)
    larger = HeadSpecification((*specification.tensors, TensorSpecification("new", (3,))))
    site.learner.private_specification = lambda plan: larger
    site.learner.initial_private_head = lambda plan: larger.initial(0)
    site.start()
    assert f"and here {larger.size}; finish it with the fedmedclip that began it" in caplog.text
    (join,) = site.hear_plan(1.0)
    assert "another version of method 'fedmedclip'" in join.cannot
    assert site.agent.tick(2.0) == []
    (join,) = site.hear_plan(3.0, number=2, identity=b"j" * 16)
    assert join.cannot == ""
    site.admit(3.0)
    assert len(site.state.load().private_head) == 4 * larger.size
    assert [plan.number for plan, _ in site.state.ended_runs()] == [PLAN.number]


def test_the_key_of_a_run_that_was_put_away_is_still_the_only_one(site):
    site.join()
    site.learner.private_specification = lambda plan: HeadSpecification((TensorSpecification("new", (3,)),))
    site.start()
    stranger = new_signing_key()
    changes = {"number": 9, "identity": b"z" * 16, "aggregator_key": stranger.public_key}
    assert site.hear_plan(1.0, key=stranger, **changes) == []


def test_a_new_connection_joins_and_delivers_again_at_once(site):
    site.join()
    (update,) = site.agent.tick(0.0)
    site.agent.disconnected()
    assert site.agent.tick(100.0) == []
    site.agent.connected()
    assert not site.agent.joined
    (join,) = site.agent.tick(1.0)
    assert isinstance(join, Join)
    site.admit(2.0)
    assert site.agent.tick(2.0) == [update]


def test_a_site_without_connection_trains_nothing(site):
    site.join()
    site.agent.disconnected()
    assert site.agent.tick(1.0) == []
    assert site.learner.trained == []


def test_an_announcement_that_came_before_the_plan_is_heeded_with_it(site):
    site.announcement()
    early = site.announcement()
    assert site.hear(early, topic=topics.head(FEDERATION)) == []
    (join,) = site.hear_plan()
    assert isinstance(join, Join)
    assert site.answer() == [HeadRequest(0)]


def test_nothing_is_trained_while_a_newer_version_is_on_its_way(site):
    site.join()
    site.announcement()
    assert site.hear(site.announcement(), 0.0, topics.head(FEDERATION)) == [HeadRequest(0)]
    assert site.agent.tick(1.0) == []
    site.hear(site.snapshot(), 2.0)
    assert rounds_in(site.agent.tick(2.0)) == [3]


def test_a_paused_run_trains_nothing_until_it_goes_on(site):
    site.join(paused=True)
    assert site.agent.tick(1.0) == []
    assert site.hear_plan(2.0, paused=False, revision=2) == []
    assert rounds_in(site.agent.tick(2.0)) == [1]


def test_added_rounds_are_trained_and_an_earlier_end_is_told_the_learner_once(site):
    site.join(rounds=1)
    site.agent.tick(0.0)
    site.settle(1)
    site.advance()
    assert site.agent.finished
    site.hear_plan(1.0, rounds=4, revision=2)
    assert not site.agent.finished
    assert rounds_in(site.agent.tick(1.0)) == [2]
    told = site.learner.told.copy()
    site.hear_plan(2.0, maximum_update_norm=9.0, revision=3)
    assert site.learner.told == told
    site.hear_plan(3.0, rounds=1, revision=4)
    assert site.learner.told == [*told, (1, 1, True)]
    site.hear_plan(4.0, maximum_update_norm=5.0, revision=5)
    assert site.learner.told == [*told, (1, 1, True)]
    site.start()
    assert site.agent.finished


def test_a_refused_round_is_trained_again_after_a_while(site):
    site.join()
    site.agent.tick(0.0)
    site.settle(1, accepted=False, now=10.0)
    # Perhaps it is no member any more: the answer to a Join would say so.
    (join,) = site.agent.tick(10.0 + RETRY_SECONDS - 1)
    assert isinstance(join, Join)
    site.admit(10.0 + RETRY_SECONDS - 1)
    assert site.agent.tick(10.0 + RETRY_SECONDS - 1) == []
    assert rounds_in(site.agent.tick(10.0 + RETRY_SECONDS)) == [1]
    assert site.learner.trained == [1, 1]


def test_an_accepted_update_is_sent_again_where_the_same_version_is_announced_again(site):
    site.join()
    (update,) = site.agent.tick(0.0)
    site.settle(1)
    assert rounds_in(site.agent.tick(50.0)) == []
    older = Announcement(0, head_digest(FIRST), False, None, None)
    assert site.hear(older, 51.0, topics.head(FEDERATION)) == []
    assert site.agent.tick(51.0) == [update]
    site.settle(1)
    site.advance(52.0)
    site.agent.tick(52.0)
    site.settle(2)
    assert site.hear(older, 53.0, topics.head(FEDERATION)) == []
    assert rounds_in(site.agent.tick(100.0)) == []


def test_a_site_that_cannot_train_abstains_and_tries_again(site):
    site.join()
    site.learner.failure = HeadError("diverged" + "!" * 500)
    (abstain,) = site.agent.tick(0.0)
    assert abstain == Abstain(1, ("diverged" + "!" * 500)[:400])
    site.learner.failure = None
    assert site.agent.tick(RETRY_SECONDS - 1) == []
    assert rounds_in(site.agent.tick(RETRY_SECONDS)) == [1]


def test_a_site_may_send_with_another_codec_than_the_federations(tmp_path):
    for codec, name in ((None, "int8"), ("lossless", "lossless"), ("int2", "int2")):
        site = Site(tmp_path / name, codec)
        site.join()
        (update,) = site.agent.tick(0.0)
        zeros = {key: np.zeros_like(array) for key, array in FIRST.items()}
        assert update.payload[:1] == encode_head(codec_named(name), zeros, SPECIFICATION).data[:1]
        site.state.close()
    assert len(update.payload) < 3000


def test_a_run_that_starts_from_a_head_asks_for_it_first(site):
    site.head = SPECIFICATION.initial(99)
    (join,) = site.hear_plan(start=head_digest(site.head))
    assert (join.version, site.agent.version) == (-1, -1)
    assert site.learner.told == []
    site.admit()
    assert site.agent.tick(1.0) == []
    announced = Announcement(0, head_digest(site.head), False, None, None)
    assert site.hear(announced, 2.0, topics.head(FEDERATION)) == [HeadRequest(-1)]
    site.hear(site.snapshot(), 3.0)
    assert site.learner.told == [(1, 0, False)]
    assert rounds_in(site.agent.tick(3.0)) == [1]


def test_a_run_that_cannot_be_followed_is_declined_with_the_reason(tmp_path):
    site = Site(tmp_path, identity=replace(IDENTITY, bundle_digest=bytes(32)))
    (join,) = site.hear_plan()
    assert "this site's bundle has digest" in join.cannot
    assert site.agent.plan_identity == PLAN.identity
    assert site.agent.tick(1.0) == []
    site.agent.disconnected()
    assert site.hear_plan(2.0, number=2, identity=b"j" * 16) == []
    site.agent.connected()
    (join,) = site.agent.tick(3.0)
    assert join.cannot
    assert site.hear_plan(4.0, number=1) == []  # it is older than the one that was declined
    assert site.agent.refused_messages == 1


def test_a_declined_run_leaves_the_one_before_and_a_later_one_is_followed(site):
    site.join()
    site.agent.tick(0.0)
    (join,) = site.hear_plan(1.0, number=2, identity=b"j" * 16, method="fedmagic")
    assert "fedmagic" in join.cannot
    assert site.agent.plan_identity == b"j" * 16
    assert site.agent.tick(2.0) == []
    assert site.state.load().plan == PLAN
    site.plan = PLAN
    (join,) = site.hear_plan(3.0, number=3, identity=b"k" * 16)
    assert join.cannot == ""
    site.admit(4.0)
    site.hear_newest(4.0)
    assert rounds_in(site.agent.tick(4.0)) == [1]
    assert [plan.number for plan, _ in site.state.ended_runs()] == [1]


def test_a_later_run_begins_anew(site):
    site.join(rounds=9)
    for version in range(1, 7):
        site.agent.tick(version)
        site.settle(version)
        site.advance(version)
    site.agent.tick(7.0)
    site.settle(7, accepted=False, now=7.0)
    (join,) = site.hear_plan(8.0, number=2, identity=b"j" * 16)
    assert (join.version, site.agent.joined, site.agent.version) == (-1, False, -1)
    assert (site.state.load().plan.number, site.learner.told[-1]) == (1, (1, 6, False))
    site.head, site.version = FIRST, 0
    site.admit(9.0)
    assert (site.state.load().plan.number, site.agent.version) == (2, 0)
    assert site.learner.told[-1] == (2, 0, False)
    assert site.agent.tick(9.0) == []  # whom the run before had drawn does not matter
    site.hear_newest(9.0)
    assert rounds_in(site.agent.tick(9.0)) == [1]  # that a round of the run before was refused is forgotten
    site.settle(1)
    site.advance(10.0)
    (shown,) = site.hear(StateRequest(0), 10.0)
    evidence = decode_evidence(shown.payload)
    assert evidence.head == SPECIFICATION.to_bytes(site.head)


def test_a_repeated_plan_makes_a_site_join_again_soon(site):
    site.join()
    site.agent.tick(0.0)
    assert site.hear_plan(5.0) == []
    messages = site.agent.tick(5.0)
    assert [type(message) for message in messages] == [Join]
    assert site.agent.joined
    site.admit(6.0)
    assert site.agent.tick(6.0) == []


def test_what_is_not_signed_as_it_must_be_is_refused_and_counted(site):
    stranger = new_signing_key()
    assert site.hear_plan(key=stranger) == []
    assert (site.agent.refused_messages, site.agent.version) == (1, -1)
    site.join()
    assert site.hear_plan(1.0, aggregator_key=stranger.public_key, number=2, key=stranger) == []
    site.plan = PLAN
    assert site.hear(Receipt(1, True, "", False, bytes(8)), key=stranger) == []
    assert site.hear(site.announcement(), topic=topics.head(FEDERATION), key=stranger) == []
    assert (site.agent.refused_messages, site.agent.version) == (4, 0)


def test_blocks_of_what_it_sent_and_of_what_it_showed_are_sent_again(tmp_path):
    site = Site(tmp_path, codec="lossless", limit=SMALL)
    site.join()
    update, *blocks = site.agent.tick(0.0)
    assert len(blocks) > 1
    assert site.hear(BlockRequest(update.payload.digest, [1])) == [blocks[1]]
    assert site.hear(BlockRequest(bytes(32), [1])) == []
    site.settle(1)
    site.advance(1.0)
    shown, *blocks = site.hear(StateRequest(0), 1.0)
    assert isinstance(shown, State)
    assert site.hear(BlockRequest(shown.payload.digest, [1, 0])) == blocks[:2]


def test_on_a_thinner_connection_updates_are_cut_smaller(tmp_path):
    site = Site(tmp_path, codec="lossless")
    site.join()
    (whole,) = site.agent.tick(0.0)
    site.agent.limit_messages(SMALL)
    site.agent.connected()
    site.agent.tick(1.0)
    site.admit(1.0)
    update, *blocks = site.agent.tick(1.0)
    assert b"".join(block.data for block in blocks) == whole.payload
    assert update.payload.block_size < SMALL


def test_a_status_is_owed_where_no_update_shows_the_version(site):
    agent = site.agent
    site.hear_plan()
    assert not agent.owes_status(None)  # it has not joined
    site.admit()
    first = agent.status(online=True)
    assert (first.fingerprint, first.online, first.version) == (fingerprint(SITE_KEY.public_key), True, 0)
    assert agent.owes_status(None)
    assert not agent.owes_status(first)
    agent.tick(0.0)
    assert agent.owes_status(None)
    site.settle(1)
    site.advance(1.0)
    assert agent.owes_status(first)  # trained is round 1 only
    agent.tick(1.0)
    assert not agent.owes_status(first)  # the update of round 2 says it
    assert agent.owes_status(None)
    site.settle(2)
    site.hear_plan(2.0, rounds=1, revision=2)
    assert agent.owes_status(first)  # the run is over: no update will say it


def test_what_is_not_for_a_site_is_refused(site):
    site.join()
    down = topics.down(FEDERATION, "site-a")
    assert site.hear(Update(1, 1, b"x", 0), topic=down) == []
    assert site.agent.refused_messages == 1


@pytest.mark.parametrize(("below", "trained"), [(0, []), ("lot", []), ("lot + 1", [1]), (None, [1])])
def test_a_site_trains_where_its_lot_is_drawn(site, below, trained):
    lot = lot_of(PLAN.seed, "site-a", 1)
    site.hear_plan()
    site.admit()
    bound = {"lot": lot, "lot + 1": lot + 1}.get(below, below)
    site.hear(Announcement(0, head_digest(FIRST), False, None, bound), 0.0, topics.head(FEDERATION))
    assert rounds_in(site.agent.tick(1.0)) == trained


def test_more_may_be_drawn_later_and_none_is_called_off(site):
    lot, head = lot_of(PLAN.seed, "site-a", 1), topics.head(FEDERATION)
    site.hear_plan()
    site.admit()
    site.hear(Announcement(0, head_digest(FIRST), False, None, lot), 0.0, head)
    assert rounds_in(site.agent.tick(1.0)) == []
    for bound in (lot + 1, 0):
        site.hear(Announcement(0, head_digest(FIRST), False, None, bound), 0.0, head)
    assert rounds_in(site.agent.tick(1.0)) == [1]
    site.settle(1)
    site.announcement()
    late = Announcement(0, head_digest(FIRST), False, None, None)
    site.hear(site.snapshot(), 2.0)
    site.hear(late, 2.0, head)
    assert rounds_in(site.agent.tick(2.0)) == [2]


def test_an_old_plan_leads_a_site_without_state_nowhere(site):
    """Its run is over: no aggregator answers what the site says for it."""
    site.hear_plan(number=2, identity=b"o" * 16)
    for now in (1.0, 30.0, 60.0):
        assert all(isinstance(message, Join) for message in site.agent.tick(now))
    assert (site.state.load(), site.learner.told, site.agent.version) == (None, [], -1)
    site.join(61.0, number=3, identity=b"t" * 16)
    assert rounds_in(site.agent.tick(62.0)) == [1]
    assert (site.state.load().plan.number, site.state.ended_runs()) == (3, [])


def test_a_later_plan_that_nobody_confirms_puts_nothing_away(site):
    site.join()
    assert rounds_in(site.agent.tick(0.0)) == [1]
    before = site.state.load()
    site.hear_plan(1.0, number=2, identity=b"o" * 16)
    assert (site.agent.joined, site.agent.finished, site.agent.version) == (False, False, -1)
    assert all(isinstance(message, Join) for message in site.agent.tick(30.0))
    assert (site.state.load(), site.state.ended_runs()) == (before, [])
    site.start()
    assert site.agent.plan_identity == PLAN.identity


@pytest.mark.parametrize("echoed", [None, Moment(1, 0, 1)])
def test_an_old_answer_confirms_no_plan(site, echoed):
    site.hear_plan(number=2, identity=b"o" * 16)
    if echoed is not None:
        site.answer(moment=echoed)
    assert site.state.load() is None
    site.answer()
    assert site.state.load() is not None


def test_an_old_revision_trains_nothing_until_the_newest_is_here(site):
    site.hear_plan()
    site.answer(revision=2)
    site.hear_newest()
    (join,) = site.agent.tick(ASK_AGAIN_SECONDS)
    assert (join.revision, site.learner.trained) == (1, [])
    site.hear_plan(21.0, revision=2, rounds=2)
    assert rounds_in(site.agent.tick(21.0)) == [1]
    assert site.state.load().plan.rounds == 2


def test_who_is_refused_after_it_had_joined_trains_no_more(site):
    site.join()
    site.agent.tick(0.0)
    site.settle(1, accepted=False, now=1.0)
    site.agent.tick(21.0)
    site.answer(21.0, accepted=False, reason="taken off the list")
    assert not site.agent.joined
    assert site.agent.tick(21.0 + RETRY_SECONDS) == []
    assert site.learner.trained == [1]


def test_copies_of_the_aggregators_requests_cost_a_bounded_share_of_the_uplink(site):
    site.join()
    site.agent.tick(0.0)
    site.settle(1)
    site.advance(1.0)
    shown = [len(site.hear(StateRequest(0), float(now))) for now in range(600)]
    assert 30 <= sum(shown) <= 40


def test_garbage_at_a_site_is_counted_and_soon_not_logged_any_more(site, caplog):
    site.join()
    tracemalloc.start()
    for number in range(3000):
        site.agent.receive(topics.head(FEDERATION), b"FM\x03garbage" + bytes(100), number / 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert site.agent.refused_messages == 3000
    assert 20 <= len(caplog.messages) <= 30
    assert "somebody floods this site" in caplog.text
    assert peak < 1 << 20
