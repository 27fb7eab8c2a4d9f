"""What is kept of the past: bounded, over restarts, and never in the way of a round."""

import sqlite3

import pytest

from fedmedclip.aggregator import chronicle as module
from fedmedclip.aggregator.chronicle import Chronicle, Happening
from fedmedclip.aggregator.commands import AddRounds, PutInQuarantine
from fedmedclip.aggregator.control import carry_out_waiting
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.errors import FullDiskError
from fedmedclip.protocol.messages import Abstain, HeadRequest
from tests.simulation.federation.loopback import FEDERATION, Loopback


@pytest.fixture
def federation(tmp_path):
    return Loopback(tmp_path, sites=2, rounds=4, embedding_size=8)


def said(federation, *sites):
    return [
        (one.kind, one.site, one.round_number)
        for one in federation.coordinator.chronicle.recent
        if not sites or one.site in sites
    ]


def play(federation, version):
    while federation.coordinator.global_head.version < version:
        federation.step()


def test_it_tells_who_came_who_delivered_and_what_was_made(federation):
    play(federation, 1)
    assert sorted(said(federation)) == [
        ("delivered", "site-0", 1), ("delivered", "site-1", 1), ("joined", "site-0", 1),
        ("joined", "site-1", 1), ("made", "", 1),
    ]  # fmt: skip
    assert said(federation)[-1] == ("made", "", 1)
    assert federation.coordinator.chronicle.recent[-1].words == "of site-0, site-1"


def test_a_site_that_goes_comes_back_or_is_silent_is_told_once_each(federation):
    play(federation, 1)
    topic, key = topics.status(FEDERATION, "site-1"), federation.keys["site-1"]
    agent = federation.agents["site-1"]
    for online in (False, False, True):
        message = seal(agent.status(online=online), topic, key, NO_IDENTITY)
        federation.coordinator.receive(topic, message, federation.now)
    federation.coordinator.tick(federation.now + 10_000.0)
    federation.coordinator.tick(federation.now + 10_001.0)
    assert [kind for kind, _, _ in said(federation, "site-1")][-3:] == ["offline", "online", "offline"]
    assert federation.coordinator.chronicle.recent[-1].words.startswith("nothing was heard of it for")


def test_it_tells_why_a_site_is_not_waited_for_and_what_was_refused_and_commanded(federation):
    play(federation, 1)
    federation.from_site("site-0", [Abstain(2, "it has no \x1b images"), HeadRequest(0)])
    federation.coordinator.receive(topics.up(FEDERATION, "nobody"), b"nonsense", federation.now)
    for command in (AddRounds(1), PutInQuarantine("site-1", "<odd>")):
        federation.store.give_command(module.msgspec.json.encode(command), 0.0)
    carry_out_waiting(federation.store, federation.coordinator, federation.now, federation.aggregator_key)
    for _ in range(5):
        federation.step()
    words = {one.kind: one.words for one in federation.coordinator.chronicle.recent}
    assert words["excused"] == "it abstained: it has no \\x1b images"
    assert words["refused"].startswith("a message of nobody: ")
    assert words["quarantined"] == "in quarantine: <odd>"
    assert words["command"] == "site-1 does not count until it is released"


def test_it_is_there_after_a_restart(federation):
    play(federation, 1)
    federation.coordinator.chronicle.write(federation.now)
    again = Store(federation.store.path)
    assert list(again.chronicle.newest()) == list(federation.coordinator.chronicle.recent)
    assert list(Chronicle(again.chronicle, lambda: 0.0).recent) == again.chronicle.newest()
    again.close()


def test_it_waits_for_the_disk_once_a_second_at_most(store):
    chronicle = Chronicle(store.chronicle, lambda: 5.0)
    chronicle.note("joined", "site-a")
    chronicle.write(10.0)
    chronicle.note("joined", "site-b")
    chronicle.write(10.9)
    assert [one.site for one in store.chronicle.newest()] == ["site-a"]
    chronicle.write(11.0)
    assert store.chronicle.newest()[1] == Happening(5.0, "site-b", "joined", 0, "")


def test_nobody_crowds_out_what_others_did(store, monkeypatch):
    monkeypatch.setattr(module, "MOST_OF_A_SITE", 5)
    monkeypatch.setattr(module, "MOST_OF_ALL", 12)
    store.chronicle.add([Happening(0.0, "quiet", "joined", 1, "")])
    for number in range(40):
        store.chronicle.add([Happening(float(number), "loud", "refused", 1, "again")])
    of_all = store.chronicle.newest()
    assert [one.site for one in of_all] == ["quiet"] + ["loud"] * 5
    assert of_all[-1].at == 39.0
    for site in ("a", "b", "c"):
        store.chronicle.add([Happening(50.0, site, "joined", 1, "")] * 5)
    assert len(store.chronicle.newest()) == 12


def test_a_full_disk_costs_words_and_no_round(federation, monkeypatch, caplog):
    def full(happenings):
        raise FullDiskError("the disk is full")

    play(federation, 1)
    monkeypatch.setattr(federation.store.chronicle, "add", full)
    chronicle = federation.coordinator.chronicle
    chronicle.write(federation.now)
    play(federation, 2)
    chronicle.write(federation.now + 5.0)
    assert caplog.text.count("what happens is not written down: the disk is full") == 1
    monkeypatch.undo()
    play(federation, 3)
    chronicle.write(federation.now + 10.0)
    assert {one.round_number for one in federation.store.chronicle.newest()} == {3}


def test_what_floods_takes_no_more_memory(store):
    chronicle = Chronicle(store.chronicle, lambda: 0.0)
    for _ in range(3 * module.RECENT):
        chronicle.note("refused", "loud", "x" * 10_000)
    assert len(chronicle.recent) == module.RECENT
    assert len(chronicle.recent[0].words) == 300


def test_a_state_of_before_there_was_a_chronicle_opens(tmp_path):
    Store(tmp_path / "aggregator.db").close()
    database = sqlite3.connect(tmp_path / "aggregator.db")
    database.execute("DROP TABLE chronicle")
    database.close()
    store = Store(tmp_path / "aggregator.db")
    assert store.chronicle.newest() == []
    store.close()
