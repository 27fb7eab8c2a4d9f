"""How the federation stands, as a person and as a program sees it."""

import json
import sqlite3
from threading import Thread

import msgspec
import pytest

from fedmedclip.aggregator import members
from fedmedclip.aggregator.control import carry_out_waiting, read_status
from fedmedclip.aggregator.status import FederationStatus, status_of, stored_status
from fedmedclip.aggregator.status_table import headline, print_status
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import Abstain, Join
from fedmedclip.protocol.progress import duration
from fedmedclip.protocol.signature import new_signing_key
from fedmedclip.protocol.state_folder import claim_state_folder, is_claimed
from tests.protocol.moments import a_moment
from tests.simulation.federation.loopback import BUNDLE, FEDERATION, Loopback


@pytest.fixture
def federation(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=3, minimum_sites=4)
    while not all(agent.joined for agent in federation.agents.values()):
        federation.step()
    return federation


def parts(status):
    return {member.site: (member.part, member.reason) for member in status.members}


def test_it_says_who_has_delivered_who_is_awaited_and_who_is_not_and_why(federation, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    topic = topics.status(FEDERATION, "site-3")
    farewell = federation.agents.pop("site-3").status(online=False)
    federation.deliver("aggregator", topic, seal(farewell, topic, federation.keys["site-3"], NO_IDENTITY))
    gone_at = federation.now
    federation.from_site("site-2", [Abstain(1, "it has no training images")])
    del federation.agents["site-2"]
    for _ in range(20):
        federation.step()
    status = status_of(federation.coordinator, federation.now + 30.0)
    assert parts(status) == {
        "site-0": ("delivered", ""),
        "site-1": ("delivered", ""),
        "site-2": ("excused", "it abstained: it has no training images"),
        "site-3": ("away", ""),
    }
    assert (status.version, status.rounds, status.delivered, status.needed) == (0, 3, 2, 3)
    assert status.members[3].seconds == federation.now + 30.0 - gone_at
    assert status.round_seconds >= 30.0
    assert status.members[0].version == 0
    print_status(status)
    printed = capsys.readouterr().out
    assert "version 0 of 3; round 1 has 2 of at least 3 updates, the first" in printed
    assert "excused: it abstained: it has no training images" in printed
    assert "gone " in printed


def say(federation, site, software, cannot="", key=None):
    """Let a site that runs a version of this software join, or say why it does not."""
    key = key or federation.keys[site]
    topic = topics.up(FEDERATION, site)
    join = Join(key.public_key, BUNDLE, 100, -1, software, cannot, a_moment(), 1)
    federation.deliver("aggregator", topic, seal(join, topic, key, federation.plan.identity))


def test_it_says_which_version_each_site_runs_and_who_cannot_take_part_though_it_is_no_member(
    federation, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    reason = "this version does not know the run's training setting 'sharpness'"
    say(federation, "site-0", "0.1.0")
    say(federation, "site-1", "0.1.0", cannot=reason)
    newcomer = new_signing_key()
    say(federation, "site-9", "0.0.9 [bold]", cannot="unknown codec", key=newcomer)
    status = status_of(federation.coordinator, federation.now)
    said = {member.site: (member.part, member.software, member.reason) for member in status.members}
    assert said["site-0"] == ("awaited", "0.1.0", "")
    assert said["site-1"] == ("unable", "0.1.0", reason)
    assert said["site-9"] == ("unable", "0.0.9 [bold]", "unknown codec")
    print_status(status)
    printed = capsys.readouterr().out
    assert f"unable: {reason}" in printed
    assert "0.0.9 [bold]" in printed
    federation.kill("aggregator")
    stored = {member.site: member.software for member in stored_status(federation.store).members}
    assert stored == {"site-0": "0.1.0", "site-1": "0.1.0", "site-2": "", "site-3": ""}
    say(federation, "site-0", "0.2.0")
    say(federation, "site-9", "0.2.0", key=newcomer)
    status = status_of(federation.coordinator, federation.now)
    updated = {member.site: (member.part, member.software) for member in status.members}
    assert updated["site-0"] == updated["site-9"] == ("awaited", "0.2.0")


def test_those_that_say_under_ever_other_names_that_they_cannot_take_part_have_an_end(
    federation, monkeypatch
):
    monkeypatch.setattr(members, "_MOST_UNABLE", 5)
    for number in range(50):
        say(federation, f"stranger-{number}", "0.1.0", cannot="it will not", key=new_signing_key())
    say(federation, "site-1", "0.1.0", cannot="a member is always heard")
    assert len(federation.coordinator.unable) == 6
    assert "site-1" in federation.coordinator.unable


def test_a_running_aggregator_is_asked_and_the_question_does_not_stay_on_record(tmp_path, federation):
    configuration = tmp_path / "aggregator.toml"
    configuration.write_text('[federation]\nname = "trial"\nbundle = "b"\nrounds = 3\nstate = "."\n')
    answers = []
    with claim_state_folder(tmp_path):
        asking = Thread(target=lambda: answers.append(read_status(configuration)))
        asking.start()
        while asking.is_alive():
            carry_out_waiting(
                federation.store, federation.coordinator, federation.now, federation.aggregator_key
            )
            asking.join(0.05)
    assert answers == [status_of(federation.coordinator, federation.now)]
    with sqlite3.connect(tmp_path / "aggregator.db") as database:
        assert database.execute("SELECT count(*) FROM commands").fetchone() == (0,)


def test_of_one_that_does_not_run_the_state_is_read(tmp_path, federation):
    configuration = tmp_path / "aggregator.toml"
    configuration.write_text('[federation]\nname = "trial"\nbundle = "b"\nrounds = 3\nstate = "."\n')
    federation.store.describe("trial", {})
    status = read_status(configuration)
    assert status == stored_status(federation.store)
    assert set(parts(status).values()) == {("unknown", "")}
    assert "the aggregator does not run" in headline(status)
    assert msgspec.json.decode(msgspec.json.encode(status), type=FederationStatus) == status
    assert json.loads(msgspec.json.encode(status))["running"] is False


def test_without_any_run_there_is_one_clear_line(tmp_path):
    configuration = tmp_path / "aggregator.toml"
    configuration.write_text('[federation]\nname = "trial"\nbundle = "b"\nrounds = 3\nstate = "."\n')
    with pytest.raises(InvalidInputError, match="has not begun a run"):
        read_status(configuration)


def test_to_look_whether_a_folder_is_claimed_claims_nothing(tmp_path):
    assert not is_claimed(tmp_path)
    with claim_state_folder(tmp_path):
        assert is_claimed(tmp_path)
        with pytest.raises(InvalidInputError, match="another process"):
            claim_state_folder(tmp_path)
    assert not is_claimed(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days")],
)
def test_durations_are_said_as_a_person_says_them(seconds, said):
    assert duration(seconds) == said


def test_a_flood_is_shown_with_who_sends_it_and_how_much_of_it_was_dropped(federation, capsys):
    key, topic = federation.keys["site-0"], topics.up(FEDERATION, "site-0")
    abstention = seal(Abstain(9, ""), topic, key, federation.plan.identity)
    for _ in range(100):
        federation.coordinator.receive(topic, abstention, federation.now)
        federation.coordinator.receive(topics.up(FEDERATION, "invented"), b"garbage", federation.now)
    status = status_of(federation.coordinator, federation.now)
    assert [(flood.site, flood.kind, flood.dropped) for flood in status.floods] == [
        ("", "messages that are not accepted", 90),
        ("site-0", "abstentions", 70),
    ]
    assert json.loads(msgspec.json.encode(status))["floods"][1]["dropped"] == 70
    print_status(status)
    printed = " ".join(capsys.readouterr().out.split())
    assert "too many messages that are not accepted of strangers: 90 dropped" in printed
    assert "too many abstentions of site-0: 70 dropped" in printed
