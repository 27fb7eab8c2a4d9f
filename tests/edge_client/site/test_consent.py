"""A site trains what its operator has approved, whatever comes first, and however often it is killed."""

import hashlib

import msgspec
import pytest

from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.policy import PolicySettings
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.heads.methods import known_methods
from fedmedclip.protocol.messages import Abstain, HeadRequest, Join, Update
from fedmedclip.protocol.plan_words import AWAITS_CONSENT, METHODS, REFUSED, plan_in_words, terms_hash
from tests.edge_client.site.test_agent import LARGE, PLAN, Site

ASK = PolicySettings()


class AskingSite(Site):
    """A site whose operator is asked; decisions come from a second connection, as from another process."""

    policy = ASK

    def start(self):
        self.state = SiteState(self.folder / "site.db", durable=False)
        self.agent = SiteAgent(self.identity, self.state, self.learner, LARGE, policy=self.policy)
        self.agent.connected()

    def decide(self, approved=True, reason="", **changes):
        other = SiteState(self.folder / "site.db", durable=False)
        plan = other.consents.heard() if not changes else msgspec.structs.replace(self.plan, **changes)
        other.consents.decide(plan, approved, "operator", reason)
        other.close()

    def restart(self):
        self.state.close()
        self.start()


@pytest.fixture
def site(tmp_path):
    return AskingSite(tmp_path)


def said(messages):
    """Return what a site says of itself: why it takes no part, None where it asks to."""
    return [message.cannot or None for message in messages if isinstance(message, Join)]


def updates(messages):
    return [message.round_number for message in messages if isinstance(message, Update)]


def abstained(messages):
    return [(message.round_number, message.reason) for message in messages if isinstance(message, Abstain)]


def test_nothing_is_trained_or_told_before_the_plan_is_approved(site, caplog):
    (asked,) = site.hear_plan()
    assert (asked.cannot, asked.samples) == (AWAITS_CONSENT, 1)
    assert "fedmedclip site approve" in caplog.text
    site.hear_newest()
    assert [site.agent.tick(float(now)) for now in range(1, 60)] == [[]] * 59
    assert site.learner.trained == []
    assert not site.agent.joined
    assert site.state.consents.asked() == PLAN


def test_once_approved_it_takes_part_by_itself(site):
    site.hear_plan()
    site.hear_newest()
    site.decide()
    assert said(site.agent.tick(1.0)) == [None]
    site.admit(1.0)
    assert updates(site.agent.tick(2.0)) == [1]
    assert site.state.evidence() is None or site.state.evidence()[0]


def test_the_newest_version_that_came_meanwhile_is_trained_from(site):
    site.hear_plan()
    site.announcement()
    announced = site.announcement()
    site.hear(announced, topic=f"fmc1/{site.identity.federation}/head")
    site.decide()
    site.agent.tick(1.0)
    requests = site.admit(1.0) + site.hear_plan(1.0)
    assert updates(site.agent.tick(2.0)) == []
    assert HeadRequest(0) in requests  # version 1 is asked for first, and then both are there


@pytest.mark.parametrize("kills", range(8))
def test_killed_between_any_two_steps_it_goes_on_once_approved(site, kills):
    """Bit i of `kills`: killed after step i, before the broker hands the plan out again."""
    for step, act in enumerate((site.hear_plan, site.decide, lambda: site.agent.tick(1.0))):
        act()
        if kills >> step & 1:
            site.restart()
    site.hear_plan(2.0)
    site.agent.tick(40.0)
    site.admit(41.0)
    site.hear_newest(41.0)
    assert updates(site.agent.tick(42.0)) == [1]


def test_a_plan_that_comes_while_the_broker_is_lost_again_and_again(site):
    site.hear_plan()
    site.agent.disconnected()
    site.decide()
    assert site.agent.tick(5.0) == []
    site.agent.connected()
    assert said(site.agent.tick(6.0)) == [None]
    site.admit(6.0)
    site.hear_newest(6.0)
    assert updates(site.agent.tick(7.0)) == [1]


def test_a_refusal_in_the_midst_of_a_run_stops_training_sending_and_following(site):
    site.hear_plan()
    site.decide()
    site.agent.tick(0.0)
    site.admit()
    site.hear_newest()
    site.agent.tick(0.0)
    site.advance()
    trained = list(site.learner.trained)
    site.decide(approved=False, reason="no ethics vote")
    messages = [message for now in range(1, 30) for message in site.agent.tick(float(now))]
    assert said(messages) == [f"{REFUSED}: no ethics vote"]
    assert updates(messages) == []
    assert site.advance(30.0) == []
    assert site.state.load().version == 1
    assert site.learner.trained == trained
    site.restart()
    assert said(site.agent.tick(31.0)) == [f"{REFUSED}: no ethics vote"]


def test_a_refusal_is_taken_back_and_the_site_catches_up(site):
    site.hear_plan()
    site.decide()
    site.agent.tick(0.0)
    site.admit()
    site.hear_newest()
    site.agent.tick(0.0)
    site.advance()
    site.decide(approved=False)
    site.agent.tick(1.0)
    site.advance(2.0)
    site.decide()
    site.agent.tick(3.0)
    site.admit(4.0)
    assert site.agent.version == 2
    assert updates(site.agent.tick(5.0)) in ([1], [3])


def test_what_was_trained_while_its_operator_refused_is_not_sent(site):
    site.hear_plan()
    site.decide()
    site.agent.tick(0.0)
    site.admit()
    site.hear_newest()
    train = site.learner.train

    def refuse_meanwhile(*arguments):
        site.decide(approved=False)
        return train(*arguments)

    site.learner.train = refuse_meanwhile
    assert updates(site.agent.tick(1.0)) == []
    assert site.state.outgoing_update() is None
    assert said(site.agent.tick(2.0)) == [REFUSED]


def test_more_rounds_are_trained_as_far_as_approved_and_then_abstained_from(site):
    site.hear_plan()
    site.decide()
    site.agent.tick(0.0)
    site.admit()
    site.hear_newest()
    site.hear_plan(0.0, rounds=5, revision=2)
    for _ in range(3):
        site.agent.tick(0.0)
        site.state.settle(site.version + 1, accepted=True)
        site.advance()
    assert site.learner.trained == [1, 2, 3]
    ((round_number, reason),) = abstained(site.agent.tick(1.0))
    assert round_number == 4
    assert "approved 3 rounds" in reason
    assert site.state.consents.asked().rounds == 5
    site.decide()
    assert updates(site.agent.tick(2.0)) == [4]


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({"rounds": 2}, False),
        ({"paused": True}, False),
        ({"maximum_update_norm": 1.0}, False),
        ({"maximum_update_norm": 2e3}, True),
        ({"identity": b"j" * 16, "number": 2, "revision": 1}, True),
        ({"identity": b"j" * 16, "number": 2, "method": "fedclip", "revision": 1}, True),
    ],
)
def test_what_asks_again(site, changes, asks):
    site.hear_plan()
    site.decide()
    site.agent.tick(0.0)
    site.admit()
    messages = site.hear_plan(1.0, **{"revision": 2, **changes})
    assert (said(messages) == [AWAITS_CONSENT]) == asks
    assert (site.state.consents.asked() is not None) == asks


def test_another_key_asks_unless_the_roster_rotated_it(site):
    consents, rotated = site.state.consents, msgspec.structs.replace(PLAN, aggregator_key=b"k" * 32)
    consents.decide(PLAN, True, "operator")
    assert not consents.covers(rotated)
    assert consents.covers(rotated, coordinator_keys=(PLAN.aggregator_key, b"k" * 32))


def test_automatic_is_on_record_and_overrides_no_refusal(tmp_path):
    site = AskingSite(tmp_path)
    site.policy = PolicySettings(approve="automatic")
    site.restart()
    assert said(site.hear_plan()) == [None]
    (decision,) = site.state.consents.decisions()
    assert (decision.by, decision.run, decision.rounds) == ("policy", 1, 3)
    site.decide(approved=False)
    assert said(site.agent.tick(1.0)) == [REFUSED]
    assert said(site.hear_plan(2.0, rounds=2, revision=2)) == [AWAITS_CONSENT]


def test_a_restored_backup_that_lacks_the_approval_asks_again(site, tmp_path):
    site.hear_plan()
    site.decide()
    site.agent.tick(0.0)
    site.admit()
    site.hear_newest()
    with site.state._database.transaction() as database:
        database.execute("DELETE FROM decisions")
    site.restart()
    assert said(site.agent.tick(0.0)) == [AWAITS_CONSENT]
    sealed = site.state._database.row("SELECT sealed_plan FROM site")
    site.decide()
    assert said(site.agent.tick(1.0)) == [None]
    assert site.state._database.row("SELECT sealed_plan FROM site") == sealed != (b"",)


def test_a_plan_may_be_approved_in_advance_by_its_hash(site):
    site.state.consents.approve_in_advance(terms_hash(PLAN), "operator")
    assert said(site.hear_plan()) == [None]
    site.admit()
    # What it was approved for counts from then on, as if it had been there.
    site.hear_plan(1.0, rounds=2, revision=2)
    assert site.state.consents.asked() is None
    assert [decision.rounds for decision in site.state.consents.decisions()] == [0, 3]


def test_the_hash_is_of_all_that_is_asked_for_and_of_nothing_else():
    same = [{"revision": 9}, {"paused": True}]
    other = [{name: value} for name, value in {
        "rounds": 4, "maximum_update_norm": 2.0, "method": "fedclip", "bundle_digest": bytes(32), "seed": 12,
        "uplink_codec": "int4", "downlink_codec": "int4", "training": {"epochs": 2}, "number": 2,
        "identity": bytes(16), "aggregator_key": bytes(32), "embedding_size": 8, "start": bytes(32),
    }.items()]  # fmt: skip
    hashes = [terms_hash(msgspec.structs.replace(PLAN, **changes)) for changes in [{}, *same, *other]]
    assert len(set(hashes)) == 1 + len(other)
    assert len(set(hashes[: 1 + len(same)])) == 1


def test_the_hash_is_that_of_the_protocols_page():
    plan = msgspec.structs.replace(PLAN, training={"epochs": 2, "batch_size": 8}, revision=7, paused=True)
    fields = [getattr(plan, name) for name in plan.__struct_fields__]
    fields[9], fields[11], fields[12] = {"batch_size": 8, "epochs": 2}, 1, False
    encoded = msgspec.msgpack.encode([1, *fields])
    assert terms_hash(plan) == hashlib.sha256(b"fedmedclip terms 1\n" + encoded).hexdigest()


def test_every_method_of_this_distribution_is_described():
    assert set(known_methods()) == set(METHODS)
    words = dict(plan_in_words(PLAN, 2531))
    assert words["An update from here"] == "encoded as int8, about 2.5 kB"
    assert "images, file names" in words["What never leaves"]
