"""From every state that a federation can come into, with everybody back in the end, it goes on."""

from dataclasses import replace
from unittest.mock import ANY

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.errors import HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.messages import (
    Announcement,
    HeadRequest,
    Join,
    Receipt,
    Snapshot,
    Update,
)
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.signature import new_signing_key
from tests.protocol.moments import a_moment
from tests.simulation.federation.loopback import BUNDLE, FEDERATION, IN_ORDER, Loopback, play_to

HOSTILE_PLANS = {
    "another key": {"aggregator_key": new_signing_key().public_key},
    "another bundle": {"bundle_digest": bytes(32), "number": 9},
    "another embedding size": {"embedding_size": 20_000, "number": 9},
    "an unknown method": {"method": "fedmagic", "number": 9},
    "an unknown codec": {"uplink_codec": "rar", "number": 9},
    "fixed things changed": {"seed": 99, "revision": 2},
}


# A fresh site that pins no key trusts the first plan that it hears: there another key is not hostile yet.
HOSTILE_TO = [(name, fresh) for name in HOSTILE_PLANS for fresh in (True, False)]


HOSTILE_TO.remove(("another key", True))


@pytest.mark.parametrize(("name", "fresh"), HOSTILE_TO)
def test_a_plan_that_cannot_be_followed_ends_nobody(tmp_path, name, fresh):
    changes = HOSTILE_PLANS[name]
    federation = Loopback(tmp_path, rounds=4)
    if not fresh:
        play_to(federation, 1)
    stranger = new_signing_key()
    key = stranger if "aggregator_key" in changes else federation.aggregator_key
    plan = msgspec.structs.replace(federation.plan, identity=bytes(range(16)), **changes)
    if "revision" in changes:
        plan = msgspec.structs.replace(plan, identity=federation.plan.identity)
    if key is stranger:
        plan = msgspec.structs.replace(plan, aggregator_key=stranger.public_key)
    topic = topics.plan(FEDERATION)
    payload = seal(plan, topic, key, NO_IDENTITY)
    for site in federation.agents:
        federation.agents[site].receive(topic, payload, federation.now)
        federation.start_site(site)  # and it starts again
    federation.run()
    assert federation.final_digest()


def test_a_site_that_cannot_take_part_says_so_and_is_not_waited_for(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=3, rounds=3, minimum_sites=2)
    agent = federation.agents["site-2"]
    agent._plans._identity = replace(agent._identity, bundle_digest=bytes(32))
    while federation.coordinator.global_head.version < 3:
        federation.step()
    assert "site-2 (software ?) cannot take part: this site's bundle" in caplog.text
    assert federation.learners["site-2"].trained == []


@pytest.mark.parametrize("error", [InvalidInputError("only one image"), HeadError("training diverged")])
def test_a_site_that_cannot_train_abstains_and_comes_back(tmp_path, error, caplog):
    federation = Loopback(tmp_path, sites=3, rounds=5, minimum_sites=3)
    learner = federation.learners["site-1"]
    train, failures = learner.train, iter([error, error])

    def sometimes(plan, shared, private, round_number):
        if (failure := next(failures, None)) is not None:
            raise failure
        return train(plan, shared, private, round_number)

    learner.train = sometimes
    federation.run()
    assert federation.final_digest()
    assert "site-1 abstains" in caplog.text
    assert learner.trained[-1] == 5


def test_a_site_that_keeps_what_it_learnt_is_not_waited_for_and_follows(tmp_path, caplog):
    digests = []
    for name, disturbance in (("quiet", {}), ("noisy", {"loss": 0.15, "repeats": 0.1, "kills": 0.05})):
        federation = Loopback(tmp_path / name, rounds=3, minimum_sites=3)
        federation.learners["site-1"].withheld = "9 training images are too few"
        federation.run(**disturbance)
        digests.append(federation.final_digest())
        assert federation.learners["site-1"].trained[-1] == 3
        state = SiteState(federation.folder / "site-1.db")
        assert (state.outgoing_update(), state.load().residual) == (None, None)
        state.close()
    assert digests[0] == digests[1]
    assert "site-1 abstains: 9 training images are too few" in caplog.text


def test_a_site_that_could_not_train_for_months_still_tries(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=3, minimum_sites=2)
    play_to(federation, 0)
    agent, learner = federation.agents["site-1"], federation.learners["site-1"]
    tries = []

    def fail(*arguments):
        tries.append(arguments)
        raise InvalidInputError("only one image")

    learner.train = fail
    for hour in range(1, 4_000):
        agent.tick(hour * 3601.0)
        if len(tries) > 1100:
            return
    raise AssertionError(f"gave up after {len(tries)} tries")


def refuse_updates_of(federation, site, limit):
    """Lower the limit at the aggregator alone, so that the site cannot know it and is refused."""
    coordinator = federation.coordinator
    coordinator._run.plan = msgspec.structs.replace(coordinator.plan, maximum_update_norm=limit)
    return coordinator


def test_a_refused_site_is_not_waited_for_and_delivers_when_the_limit_is_raised(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=4, minimum_sites=3)
    federation.learners["site-1"].train = lambda plan, shared, private, number: (
        {name: array + np.float32(number) for name, array in shared.items()}, private,
    )  # fmt: skip
    refuse_updates_of(federation, "site-1", 5.0)
    while federation.coordinator.global_head.version < 2:
        federation.step()
    refused = federation.agents["site-1"]
    assert refused._delivery._refusals > 0
    federation.coordinator._run.plan = federation.plan
    federation.run()
    assert federation.final_digest()
    assert federation.store._database.row("SELECT last_round FROM sites WHERE name = 'site-1'") == (4,)


def test_honest_sites_keep_to_the_limit_by_themselves(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    federation.coordinator.revise(0.0, maximum_update_norm=0.05)
    federation.plan = federation.coordinator.plan
    federation.retained.clear()
    federation.from_aggregator(federation.coordinator.opening())
    federation.run()
    assert federation.final_digest()
    assert "refused the update" not in caplog.text


def test_a_hostile_head_ends_no_site(tmp_path):
    federation = Loopback(tmp_path, sites=1, rounds=9)
    play_to(federation, 1)
    agent, identity = federation.agents["site-0"], federation.plan.identity
    huge = {name: np.full_like(array, 3e38) for name, array in federation.specification.initial(0).items()}
    encoded = encode_head(codec_named("lossless"), huge, federation.specification).data
    topic = topics.head(FEDERATION)
    for version in (2, 3):
        payload = refer_to(encoded, 1 << 20)
        message = Announcement(version, bytes(32), False, payload, None)
        agent.receive(topic, seal(message, topic, federation.aggregator_key, identity), federation.now)
    down = topics.down(FEDERATION, "site-0")
    message = Snapshot(
        4, head_digest({k: v + v for k, v in huge.items()}), False, refer_to(encoded, 1 << 20), None
    )
    agent.receive(down, seal(message, down, federation.aggregator_key, identity), federation.now)
    federation.start_site("site-0")
    assert federation.agents["site-0"].version == 1


def test_a_site_that_falls_silent_without_a_last_will_is_not_waited_for(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=3, minimum_sites=2)
    play_to(federation, 1)
    del federation.agents["site-2"]
    began = federation.now
    while federation.coordinator.global_head.version < 2:
        federation.step()
    assert federation.now - began < 300
    assert not federation.coordinator.rounds.present("site-2")


def test_a_flood_of_requests_costs_bounded_memory_and_nobody_else(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=5, embedding_size=80, codec="int8")
    play_to(federation, 2)
    topic, identity = topics.up(FEDERATION, "site-0"), federation.plan.identity
    request = seal(HeadRequest(-1), topic, federation.keys["site-0"], identity)
    answers = 0
    for _ in range(2000):
        found = federation.coordinator.receive(topic, request, federation.now)
        answers += sum(isinstance(item.message, Snapshot) for item in found)
    assert 1 <= answers <= 10
    stranger = new_signing_key()
    topic = topics.up(FEDERATION, "site-9")
    join = Join(stranger.public_key, BUNDLE, 10, -1, "", "", a_moment(), 1)
    found = federation.coordinator.receive(topic, seal(join, topic, stranger, identity), federation.now)
    assert found[0].message.accepted


def test_answers_wait_while_the_link_has_no_room(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=5)
    play_to(federation, 2)
    coordinator, topic = federation.coordinator, topics.up(FEDERATION, "site-0")
    coordinator._has_room = lambda: False
    request = seal(HeadRequest(0), topic, federation.keys["site-0"], federation.plan.identity)
    assert coordinator.receive(topic, request, federation.now) == []
    coordinator._has_room = lambda: True
    assert [type(item.message) for item in coordinator.tick(federation.now)] == [Announcement, Announcement]


@pytest.mark.parametrize("behind", [3, 30])
def test_catching_up_costs_hardly_more_than_the_smaller_of_deltas_and_snapshot(tmp_path, behind):
    federation = Loopback(tmp_path, sites=2, rounds=1 + behind, minimum_sites=1, embedding_size=64)
    del federation.agents["site-1"]
    play_to(federation, 1 + behind)
    head = federation.coordinator.global_head
    envelope = 114
    least = min(
        sum(len(stored.payload) + envelope for stored in federation.store.versions_after(0)),
        len(head._snapshot_bytes()) + envelope,
    )
    received = 0
    deliver = federation.deliver

    def counted(receiver, topic, payload):
        nonlocal received
        if receiver == "site-1" and isinstance(
            open_envelope(payload, topic).message, Announcement | Snapshot
        ):
            received += len(payload)
        deliver(receiver, topic, payload)

    federation.deliver = counted
    federation.start_site("site-1")
    # In the order in which they were sent, as MQTT delivers them.
    while not federation.agents["site-1"].finished or federation.queue:
        federation.step(chance=IN_ORDER)
    retained = len(federation.retained[topics.head(FEDERATION)])
    assert received - retained <= 1.1 * least


def test_an_update_of_a_round_that_is_over_is_settled_as_closed(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=5, minimum_sites=1)
    play_to(federation, 2)
    topic = topics.up(FEDERATION, "site-0")
    late = seal(Update(1, 10, b"late", 0), topic, federation.keys["site-0"], federation.plan.identity)
    with federation.store._database.transaction() as database:
        database.execute("UPDATE sites SET last_round = 0")
    federation.store.counted.forget("site-0", 1)
    (answer,) = federation.coordinator.receive(topic, late, federation.now)
    assert answer.message == Receipt(1, False, answer.message.reason, True, ANY)
