"""What deploy/ and configs/ hold is real: configurations decode, and the access rules do what they say."""

from contextlib import ExitStack

import msgspec
import pytest

from benchmarks.wire.broker_writes import settings_of, written_bytes
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.init import EXAMPLES
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.link.link import Connected, Received
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests import ROOT
from tests.protocol.link.helpers import open_link, unique, wait_for, write_accounts

DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize("name", ["aggregator.toml", "site.toml"])
def test_the_examples_are_those_of_the_installed_command(name):
    assert (DEPLOY / name).read_text() == (EXAMPLES / name).read_text()


@pytest.mark.parametrize("path", sorted((DEPLOY.parent / "configs" / "papers").glob("*.toml")), ids=str)
def test_the_papers_configurations_are_valid(path):
    configuration = read_configuration(path, AggregatorConfiguration)
    assert configuration.federation.method == path.stem
    msgspec.convert(configuration.training, TrainingSettings)


def test_the_access_rules_keep_sites_out_of_each_others_topics(tmp_path, mosquitto_installed):
    passwords = write_accounts(tmp_path, "aggregator", "site-a", "site-b")
    rules = [f"acl_file {DEPLOY / 'federation.acl'}", f"password_file {passwords}"]
    with MosquittoBroker(allow_anonymous=False, settings=rules) as broker, ExitStack() as opened:

        def open_as(user):
            link = open_link(broker, unique(user), username=user, password_file=str(tmp_path / user))
            opened.enter_context(link)
            for topic in ("plan", "head", "blocks", "up/+", "down/+", "status/+"):
                link.subscribe(f"fmc1/brain-mri/{topic}")
            wait_for(link, Connected)
            assert everything_received(link) == set()  # and by then it is subscribed
            return link

        links = {user: open_as(user) for user in ("aggregator", "site-a", "site-b")}
        topics = ["plan", "head", "blocks", "up/site-a", "down/site-a", "status/site-a"]
        for user, link in links.items():
            for topic in topics:
                link.publish(f"fmc1/brain-mri/{topic}", user.encode())
        seen = {user: everything_received(link) for user, link in links.items()}
    from_site_a = {("up/site-a", "site-a"), ("status/site-a", "site-a")}
    from_aggregator = {(topic, "aggregator") for topic in topics}
    assert seen["aggregator"] == from_aggregator | from_site_a
    assert seen["site-a"] == {(topic, "aggregator") for topic in ("plan", "head", "blocks", "down/site-a")}
    assert seen["site-b"] == {(topic, "aggregator") for topic in ("plan", "head", "blocks")}


def test_a_burst_of_messages_is_not_written_again_with_each_of_them(mosquitto_installed):
    """Counted by the kernel: the broker's own database of all that waits for a party that is away."""
    with MosquittoBroker(settings=settings_of(DEPLOY / "mosquitto.conf")) as broker:
        name, topic = unique("away"), unique("burst")
        with open_link(broker, name) as away:
            away.subscribe(topic)
            away.publish(topic, b"subscribed")
            wait_for(away, Received).acknowledge()
        with open_link(broker) as sender:
            for _ in range(40):
                sender.publish(topic, bytes(100_000))
            while sender.unfinished:
                sender.next_event(0.1)
        assert written_bytes(broker.process_identifier) < 2 * 40 * 100_000


def everything_received(link):
    """Return (topic below the federation, sender) of all messages until nothing comes for a second."""
    seen = set()
    while (event := link.next_event(1.0)) is not None:
        if isinstance(event, Received):
            seen.add((event.topic.removeprefix("fmc1/brain-mri/"), event.payload.decode()))
            event.acknowledge()
    return seen
