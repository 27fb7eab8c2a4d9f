"""The whole protocol over a bad network, with killed parties, without a broker."""

import pytest

from fedmedclip.edge_client.heads.gaussians import statistics_arrived
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import open_envelope, seal
from fedmedclip.protocol.link.limits import LEAST_PAYLOAD_BYTES
from fedmedclip.protocol.messages import Block, Join, Update
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.signature import new_signing_key
from fedmedclip.simulation.demo.summary import global_heads
from tests.protocol.moments import a_moment
from tests.simulation.federation.loopback import BUNDLE, FEDERATION, Loopback, StatisticsLearner


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    federation = Loopback(tmp_path_factory.mktemp("undisturbed"))
    federation.run()
    return federation


def test_a_quiet_federation_ends_with_the_same_bits_everywhere(undisturbed):
    assert undisturbed.final_digest()
    for learner in undisturbed.learners.values():
        assert learner.trained == [1, 2, 3, 4]
        assert len(set(learner.digests.values())) == 5


@pytest.mark.parametrize("seed", range(6))
def test_loss_repetition_and_kills_change_no_bit_of_the_result(tmp_path, undisturbed, seed):
    federation = Loopback(tmp_path)
    federation.run(loss=0.15, repeats=0.1, kills=0.03, seed=seed)
    assert federation.final_digest() == undisturbed.final_digest()


@pytest.mark.parametrize("codec", ["auto:bytes=600", "topk:share=0.05", "int4"])
def test_every_codec_ends_with_the_same_bits_after_kills(tmp_path, codec):
    quiet = Loopback(tmp_path / "quiet", codec=codec)
    quiet.run()
    noisy = Loopback(tmp_path / "noisy", codec=codec)
    noisy.run(loss=0.15, repeats=0.1, kills=0.05, seed=7)
    assert noisy.final_digest() == quiet.final_digest()
    for site in quiet.agents:
        state, again = (SiteState(run.folder / f"{site}.db").load() for run in (quiet, noisy))
        assert (state.residual, state.codec_memory) == (again.residual, again.codec_memory)


def test_statistics_that_are_owed_once_are_counted_once_whoever_is_killed(tmp_path):
    options = {"codec": "moments", "method": "one-message", "classes": 3, "learner": StatisticsLearner}
    quiet, noisy = (Loopback(tmp_path / name, rounds=2, **options) for name in ("quiet", "noisy"))
    quiet.run()
    noisy.run(loss=0.15, repeats=0.1, kills=0.05, seed=3)
    assert noisy.final_digest() == quiet.final_digest()
    newest = dict(global_heads(quiet.store, 3))[2]
    assert statistics_arrived(newest)
    assert newest["class_shares"].sum() == pytest.approx(1, abs=0.01)


def test_a_site_on_a_thinner_link_keeps_to_its_own_budget(tmp_path):
    federation = Loopback(tmp_path, minimum_sites=4, codec="int8", own_codecs={"site-1": "auto:bytes=600"})
    while len(federation.store.stored_updates()) < 3:
        federation.step()
    sizes = {update.site: len(update.payload) for update in federation.store.updates()}
    assert 0 < sizes["site-1"] < 600 < min(sizes["site-0"], sizes["site-2"])


def test_large_heads_survive_it_too(tmp_path):
    quiet = Loopback(tmp_path / "quiet", rounds=2, embedding_size=80, codec="int8")
    quiet.run()
    assert len(quiet.store.newest_version().payload) > 3 * 4096
    noisy = Loopback(tmp_path / "noisy", rounds=2, embedding_size=80, codec="int8")
    noisy.run(loss=0.15, repeats=0.1, kills=0.03, seed=4)
    assert noisy.final_digest() == quiet.final_digest()


def test_a_status_is_published_where_no_update_says_which_version_is_here(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=6, minimum_sites=2)
    published = []
    while not (federation.coordinator.settled and not federation.queue):
        federation.step()
        published += [item for item in federation.queue if "/status/" in item[1] and item not in published]
    versions = [open_envelope(payload, topic).message.version for _, topic, payload in published]
    assert versions.count(6) == 2  # an aggregator that ends with the federation waits for these
    assert len(versions) <= 2 * 3  # not one for each site and version


def test_a_broker_that_takes_less_than_was_configured_changes_no_bit(tmp_path):
    quiet = Loopback(tmp_path / "quiet", rounds=2, embedding_size=80, codec="int8")
    quiet.run()
    thin = Loopback(tmp_path / "thin", rounds=2, embedding_size=80, codec="int8")
    while thin.coordinator.global_head.version < 1:
        thin.step()
    thin.queue.clear()
    thin.coordinator.global_head.limit_messages(LEAST_PAYLOAD_BYTES)
    for agent in thin.agents.values():
        agent.limit_messages(LEAST_PAYLOAD_BYTES)
        agent.connected()
    thin.from_aggregator(thin.coordinator.opening())
    while not all(agent.finished for agent in thin.agents.values()):
        thin.step()
        assert all(len(payload) <= LEAST_PAYLOAD_BYTES for _, _, payload in thin.queue)
    assert thin.final_digest() == quiet.final_digest()


def test_a_join_that_a_broker_forgot_is_repeated_when_the_aggregator_is_back(tmp_path):
    federation = Loopback(tmp_path)
    federation.run()
    agent = federation.agents["site-0"]
    plan = federation.retained[topics.plan(FEDERATION)]
    agent.connected()
    assert any(isinstance(message, Join) for message in agent.tick(100.0))
    assert agent.tick(105.0) == []
    agent.receive(topics.plan(FEDERATION), plan, 106.0)
    assert any(isinstance(message, Join) for message in agent.tick(106.0))
    agent.receive(topics.plan(FEDERATION), plan, 106.5)
    assert agent.tick(109.0) == []  # the answer may be on its way
    assert any(isinstance(message, Join) for message in agent.tick(109.5))


def test_a_site_that_comes_late_catches_up_and_takes_part(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=5, minimum_sites=2)
    del federation.agents["site-2"]
    while federation.coordinator.global_head.version < 3:
        federation.step()
    federation.start_site("site-2")
    federation.run()
    assert federation.final_digest()
    assert federation.learners["site-2"].trained[-1] == 5
    assert set(federation.learners["site-0"].trained) == {1, 2, 3, 4, 5}


def test_a_site_that_missed_many_versions_gets_the_smaller_of_deltas_and_snapshot(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=12, minimum_sites=1, codec="int8")
    del federation.agents["site-1"]
    federation.run()
    head = federation.coordinator.global_head
    near, far = head.catch_up(10), head.catch_up(0)
    assert [type(answer).__name__ for answer in near] == ["Announcement", "Announcement"]
    assert [type(answer).__name__ for answer in far] == ["Snapshot"]
    federation.start_site("site-1")
    federation.run()
    assert federation.final_digest()


def test_a_second_site_of_the_same_name_is_refused_and_disturbs_nobody(tmp_path, undisturbed):
    federation = Loopback(tmp_path)
    while not federation.coordinator.global_head.version:
        federation.step()
    impostor = new_signing_key()
    topic = topics.up(FEDERATION, "site-1")
    join = Join(impostor.public_key, BUNDLE, 10, -1, "", "", a_moment(), 1)
    answers = federation.coordinator.receive(
        topic, seal(join, topic, impostor, federation.plan.identity), federation.now
    )
    assert [answer.message.accepted for answer in answers] == [False]
    assert "belongs to another site" in answers[0].message.reason
    forged = seal(Update(2, 10**6, refer_to(b"x", 4096), 0), topic, impostor, federation.plan.identity)
    assert federation.coordinator.receive(topic, forged, federation.now) == []
    federation.run()
    assert federation.final_digest() == undisturbed.final_digest()


def test_a_site_without_connection_lets_nothing_pile_up_and_delivers_afterwards(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=1, embedding_size=80, codec="int8")
    agent = federation.agents["site-0"]
    lost: list = []
    while not any(isinstance(message, Update) for message in lost):
        federation.step()
        lost = agent.tick(federation.now) if agent.joined else []
    assert len(lost) > 3  # the update and its blocks
    agent.disconnected()
    assert [agent.tick(federation.now + 20.0 * count) for count in range(1, 181)] == [[]] * 180
    agent.connected()
    federation.run()
    assert federation.final_digest()


def test_a_damaged_head_is_replaced_on_disk_too(tmp_path):
    federation = Loopback(tmp_path, sites=1, rounds=1)
    while (stored := federation.states["site-0"].load()) is None:
        federation.step()
    federation.states["site-0"].install(0, bytes(len(stored.shared_head)))
    federation.start_site("site-0")
    while federation.states["site-0"].load().shared_head != stored.shared_head:
        federation.step()
    federation.run()
    assert federation.final_digest()


class Overheard(Loopback):
    """Keeps whatever passes through the network."""

    def __init__(self, *arguments, **settings):
        self.heard: list[tuple[str, str, bytes]] = []
        super().__init__(*arguments, **settings)

    def deliver(self, receiver, topic, payload):
        self.heard.append((receiver, topic, payload))
        super().deliver(receiver, topic, payload)


def test_messages_of_an_earlier_federation_with_the_same_name_and_keys_count_nowhere(tmp_path, caplog):
    earlier = Overheard(tmp_path / "earlier", embedding_size=80, rounds=2, codec="int8")
    earlier.run()
    signed = [item for item in earlier.heard if not item[1].endswith("/plan") and "/status/" not in item[1]]
    kinds = {type(open_envelope(payload, topic).message).__name__ for _, topic, payload in signed}
    assert kinds >= {"Join", "JoinAnswer", "Announcement", "Update", "Block", "Receipt"}
    later = Loopback(tmp_path / "later", embedding_size=80, rounds=2, codec="int8", keys_of=earlier)
    while not all(agent.joined for agent in later.agents.values()):
        later.step()
    caplog.clear()
    for receiver, topic, payload in signed:
        party = later.coordinator if receiver == "aggregator" else later.agents[receiver]
        assert party.receive(topic, payload, later.now) == []
    refused = later.coordinator.refused_messages.total()
    refused += sum(agent.refused_messages for agent in later.agents.values())
    # Nobody looks at who signed a block that is not expected.
    blocks = [item for item in signed if isinstance(open_envelope(item[2], item[1]).message, Block)]
    assert refused == len(signed) - len(blocks)
    assert any("sent in another federation of this name" in message for message in caplog.messages)
    assert later.store.stored_updates() == []
    later.run()
    assert later.final_digest() == earlier.final_digest()
