"""The example files in deploy/ are real: they decode, and name every setting there is."""

import subprocess
from contextlib import ExitStack

import msgspec
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.link import Connected, Received
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests import ROOT
from tests.protocol.link.helpers import open_link, unique, wait_for

DEPLOY = ROOT / "deploy"


@pytest.mark.parametrize(
    ("name", "structure"), [("aggregator.toml", AggregatorConfiguration), ("site.toml", SiteConfiguration)]
)
def test_examples_decode_and_name_every_setting(name, structure):
    configuration = read_configuration(DEPLOY / name, structure)
    text = (DEPLOY / name).read_text()
    for table in structure.__struct_fields__:
        settings = getattr(configuration, table)
        if table == "broker" and name == "site.toml":
            continue
        for setting in getattr(settings, "__struct_fields__", ()):
            assert setting in text, f"{name} does not show {table}.{setting}"


@pytest.mark.parametrize("path", sorted((DEPLOY.parent / "configs" / "papers").glob("*.toml")), ids=str)
def test_the_papers_configurations_are_valid(path):
    configuration = read_configuration(path, AggregatorConfiguration)
    assert configuration.federation.method == path.stem
    msgspec.convert(configuration.training, TrainingSettings)


def test_the_example_shows_every_training_setting():
    text = (DEPLOY / "aggregator.toml").read_text()
    missing = [name for name in TrainingSettings.__struct_fields__ if name not in text and name != "threads"]
    assert not missing


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[federation\n", "configuration .*aggregator.toml"),
        ("[federation]\nname = 'x'\nbundle = 'b'\nrounds = 0\n", r"rounds"),
        ("[federation]\nname = 'x'\nbundle = 'b'\nrounds = 3\nround = 4\n", "round"),
        ("[federation]\nname = 'x'\nrounds = 3\n", "bundle"),
        ("[federation]\nname='x'\nbundle='b'\nrounds=3\n[broker]\nhost='mqtt://x'\n", "without mqtt://"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "aggregator.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        read_configuration(path, AggregatorConfiguration)
    assert "aggregator.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_access_rules_keep_sites_out_of_each_others_topics(tmp_path, mosquitto_installed):
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    for user in ("aggregator", "site-a", "site-b"):
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, user], check=True)
        (tmp_path / user).write_text(user)
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


def everything_received(link):
    """Return (topic below the federation, sender) of all messages until nothing comes for a second."""
    seen = set()
    while (event := link.next_event(1.0)) is not None:
        if isinstance(event, Received):
            seen.add((event.topic.removeprefix("fmc1/brain-mri/"), event.payload.decode()))
            event.acknowledge()
    return seen
