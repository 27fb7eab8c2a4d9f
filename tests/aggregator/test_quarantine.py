"""A site that does not count: nobody waits for it, it follows, and once it is released it counts again."""

import msgspec
import pytest

from fedmedclip.aggregator.commands import PutInQuarantine, Release, carry_out
from fedmedclip.aggregator.status import status_of, stored_status
from fedmedclip.aggregator.status_table import print_status
from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import Receipt, Update
from tests.simulation.federation.loopback import Loopback, play_to


@pytest.fixture
def federation(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=8, embedding_size=8)
    play_to(federation, 1)
    yield federation
    federation.store.close()


def counted(federation):
    """Return whose updates are in each version from now on."""
    found, close = {}, federation.coordinator.global_head.aggregate

    def watched(round_number, weighing):
        found[round_number] = {site for site, _ in federation.store.stored_updates()}
        close(round_number, weighing)

    federation.coordinator.global_head.aggregate = watched
    return found


def command(federation, given):
    answer, outgoing = carry_out(given, federation.coordinator, federation.now)
    federation.from_aggregator(outgoing)
    return answer


def test_the_others_go_on_and_the_run_ends(federation):
    found = counted(federation)
    assert "site-1 does not count" in command(federation, PutInQuarantine("site-1", "its updates are noise"))
    federation.run()
    assert all(sites == {"site-0", "site-2"} for sites in found.values())
    assert set(found) == set(range(2, 9))
    # It follows all the same.
    assert federation.final_digest() == federation.coordinator.global_head.digest


def test_what_counted_before_is_not_refused_for_it(federation):
    """Its site would give back what it owes, and what is in the head already would come once more."""
    settled, receive = [], federation.coordinator.receive
    sent = []

    def watched(topic, payload, now):
        message = open_envelope(payload, topic).message
        if isinstance(message, Update) and topic.endswith("up/site-1"):
            sent.append((topic, payload))
        return receive(topic, payload, now)

    federation.coordinator.receive = watched
    play_to(federation, 3)
    command(federation, PutInQuarantine("site-1", "its updates are noise"))
    before_last = [item for item in sent if open_envelope(item[1], item[0]).message.round_number <= 3]
    for outgoing in receive(*before_last[-1], federation.now):
        settled.append(outgoing.message)
    assert [(receipt.round_number, receipt.accepted) for receipt in settled] == [(3, True)]


def test_it_outlasts_a_restart_and_is_shown(federation, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    command(federation, PutInQuarantine("site-1", "its updates are noise"))
    federation.kill("aggregator")
    found = counted(federation)
    play_to(federation, 3)
    assert all("site-1" not in sites for sites in found.values())
    for status in (status_of(federation.coordinator, federation.now), stored_status(federation.store)):
        (member,) = [member for member in status.members if member.site == "site-1"]
        assert (member.part, member.reason) == ("quarantined", "its updates are noise")
        assert "quarantined" in msgspec.json.encode(status).decode()
    print_status(status)
    assert "quarantined: its updates are noise" in " ".join(capsys.readouterr().out.split())


def test_what_it_delivers_is_refused_with_the_reason_and_takes_no_room(federation):
    command(federation, PutInQuarantine("site-1", "noise"))
    receipts = []
    deliver = federation.deliver

    def watched(receiver, topic, payload):
        before = len(federation.queue)
        deliver(receiver, topic, payload)
        assert not [stored for stored in federation.store.stored_updates() if stored[0] == "site-1"]
        assert "site-1" not in federation.store.uploads()
        return before

    federation.deliver = watched
    update = Update(2, 10, b"x", 0)
    outgoing = federation.coordinator._settling.update("site-1", update, federation.now)
    receipts = [item.message for item in outgoing if isinstance(item.message, Receipt)]
    assert receipts == [Receipt(2, False, "in quarantine: noise", False, update.mark)]
    play_to(federation, 4)


def test_an_update_of_the_open_round_is_taken_out_again(federation):
    while ("site-1", 2) not in federation.store.stored_updates():
        federation.step()
    found = counted(federation)
    command(federation, PutInQuarantine("site-1"))
    assert federation.store.stored_updates() == [] or all(
        site != "site-1" for site, _ in federation.store.stored_updates()
    )
    play_to(federation, 3)
    assert all("site-1" not in sites for sites in found.values())


def test_once_released_it_counts_again_by_itself(federation):
    found = counted(federation)
    command(federation, PutInQuarantine("site-1", "noise"))
    play_to(federation, 3)
    assert command(federation, Release("site-1")) == "site-1 counts again"
    federation.run()
    assert "site-1" in found[8]
    assert federation.store.quarantined() == {}


def test_where_all_were_in_quarantine_who_is_released_brings_the_run_on(federation):
    for site in federation.agents:
        command(federation, PutInQuarantine(site))
    for _ in range(200):
        federation.step()
    assert federation.coordinator.global_head.version == 1
    command(federation, Release("site-2"))
    play_to(federation, 2)


def test_released_in_the_same_round_its_update_comes_again(federation):
    while ("site-1", 2) not in federation.store.stored_updates():
        federation.step()
    found = counted(federation)
    command(federation, PutInQuarantine("site-1"))
    command(federation, Release("site-1"))
    federation.run()
    assert "site-1" in found[8]


def test_only_members_go_into_quarantine_and_only_who_is_there_comes_out(federation):
    with pytest.raises(InvalidInputError, match="'site-9' is no member; members are site-0"):
        command(federation, PutInQuarantine("site-9"))
    with pytest.raises(InvalidInputError, match="'site-1' is not in quarantine; nobody is"):
        command(federation, Release("site-1"))


def test_another_run_keeps_it(federation):
    command(federation, PutInQuarantine("site-1", "noise"))
    federation.begin_run(rounds=2)
    found = counted(federation)
    federation.run()
    assert found
    assert all("site-1" not in sites for sites in found.values())
