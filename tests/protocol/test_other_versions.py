"""What release 0.1.0 says (protocol 1, in `version_1/`) is refused with one clear line, and ends nobody."""

import logging
from pathlib import Path

import pytest

from fedmedclip.protocol import topics
from tests.simulation.federation.loopback import FEDERATION, Loopback

FOLDER = Path(__file__).with_name("version_1")
SITE = "site-1"
FOR_AGGREGATOR = {
    "join": topics.up(FEDERATION, SITE),
    "update": topics.up(FEDERATION, SITE),
    "status": topics.status(FEDERATION, SITE),
    "status-will": topics.status(FEDERATION, SITE),
}
FOR_SITE = {"plan": topics.plan(FEDERATION), "announcement": topics.head(FEDERATION)}
LINE = "has protocol version 1, this software speaks 4; update the older side"


def lines_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_each_file_is_of_version_1():
    files = {path.stem: path.read_bytes() for path in FOLDER.glob("*.bin")}
    assert files.keys() == {*FOR_AGGREGATOR, *FOR_SITE}
    assert {content[:3] for content in files.values()} == {b"FM\x01"}


@pytest.mark.parametrize("name", FOR_AGGREGATOR)
def test_an_older_site_is_refused_by_the_aggregator_in_one_line(tmp_path, caplog, name):
    federation = Loopback(tmp_path, sites=2, rounds=2)
    topic = FOR_AGGREGATOR[name]
    assert federation.coordinator.receive(topic, (FOLDER / f"{name}.bin").read_bytes(), 0.0) == []
    (line,) = lines_of(caplog)
    assert line == f"refused a message of {SITE}: a message on {topic} {LINE}"
    federation.run()
    assert federation.final_digest()


@pytest.mark.parametrize("name", FOR_SITE)
@pytest.mark.parametrize("joined", [False, True], ids=["before it joins", "joined"])
def test_an_older_aggregator_is_refused_by_a_site_in_one_line(tmp_path, caplog, name, joined):
    federation = Loopback(tmp_path, sites=2, rounds=2)
    while joined and not federation.agents[SITE].joined:
        federation.step()
    topic, agent = FOR_SITE[name], federation.agents[SITE]
    assert agent.receive(topic, (FOLDER / f"{name}.bin").read_bytes(), federation.now) == []
    assert [line for line in lines_of(caplog) if "version 1" in line] == [
        f"refused a message on {topic}: a message on {topic} {LINE}"
    ]
    federation.run()
    assert federation.final_digest()


def test_a_site_that_does_not_understand_the_plan_says_once_who_it_is_and_what_it_speaks(tmp_path):
    agent = Loopback(tmp_path, sites=2).agents[SITE]
    assert not agent.owes_status(None)
    agent.receive(FOR_SITE["plan"], (FOLDER / "plan.bin").read_bytes(), 0.0)
    assert agent.owes_status(None)
    assert not agent.owes_status(agent.status(online=True))
