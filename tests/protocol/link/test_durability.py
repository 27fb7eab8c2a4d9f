"""The MQTT link when processes and brokers die: nothing acknowledged is lost."""

import time
from collections.abc import Iterator

import pytest

from fedmedclip.protocol.link.link import Connected, Disconnected, Message, Published, Received
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.protocol.link.helpers import open_link, quiet, start_client_process, unique, wait_for


@pytest.fixture
def mortal_broker(mosquitto_installed: None) -> Iterator[MosquittoBroker]:
    """A Mosquitto that saves each change at once, so that a kill does not make it forget a subscription."""
    with MosquittoBroker(settings=["autosave_on_changes true"]) as broker:
        yield broker


def test_a_message_that_was_not_acknowledged_comes_again_after_a_kill(mosquitto: MosquittoBroker) -> None:
    topic, name = unique("unacknowledged"), unique("victim")
    process = start_client_process(mosquitto, name, topic, unique("will"))
    assert process.stdout is not None
    with process, open_link(mosquitto) as sender:
        assert process.stdout.readline().startswith("Connected")
        sender.publish(topic, b"precious", retain=True)
        assert process.stdout.readline() == "Received precious\n"
        process.kill()
    with open_link(mosquitto, name) as survivor:
        assert wait_for(survivor, Connected).session_present
        received = wait_for(survivor, Received)
        assert received.payload == b"precious"
        received.acknowledge()
    with open_link(mosquitto, name) as again:
        assert wait_for(again, Connected).session_present
        assert quiet(again, Received)


def test_the_will_is_published_after_a_kill_but_not_after_a_clean_close(mosquitto: MosquittoBroker) -> None:
    will_topic = unique("will")
    with open_link(mosquitto) as observer:
        observer.subscribe(will_topic)
        observer.publish(will_topic, b"subscribed")
        wait_for(observer, Received).acknowledge()
        with open_link(mosquitto, will=Message(will_topic, b"gone")) as link:
            wait_for(link, Connected)
            link.close([Message(will_topic, b"goodbye")])
        received = wait_for(observer, Received)
        received.acknowledge()
        assert received.payload == b"goodbye"
        assert quiet(observer, Received)

        process = start_client_process(mosquitto, unique("victim"), "nothing", will_topic)
        assert process.stdout is not None
        with process:
            assert process.stdout.readline().startswith("Connected")
            process.kill()
        assert wait_for(observer, Received).payload == b"gone"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_persistent_session_gets_what_it_missed(mosquitto: MosquittoBroker, protocol: str) -> None:
    topic, name = unique("missed"), unique("sleeper")
    with open_link(mosquitto, name, protocol=protocol) as sleeper:
        sleeper.subscribe(topic)
        sleeper.publish(topic, b"subscribed")
        wait_for(sleeper, Received).acknowledge()
    with open_link(mosquitto) as sender:
        for number in range(50):
            sender.publish(topic, b"%d" % number)
        sender.close(timeout=20.0)
        assert sender.unfinished == 0
    with open_link(mosquitto, name, protocol=protocol) as sleeper:
        for number in range(50):
            received = wait_for(sleeper, Received)
            assert received.payload == b"%d" % number
            received.acknowledge()


def test_a_killed_broker_costs_nothing_that_was_queued(mortal_broker: MosquittoBroker) -> None:
    topic = unique("storm")
    with open_link(mortal_broker) as sender, open_link(mortal_broker) as receiver:
        receiver.subscribe(topic)
        receiver.publish(topic, b"subscribed")
        wait_for(receiver, Received).acknowledge()
        sender.publish(topic, b"before")
        wait_for(sender, Published)
        wait_for(receiver, Received).acknowledge()

        mortal_broker.kill()
        assert not wait_for(sender, Disconnected).fatal
        wait_for(receiver, Disconnected)
        for number in range(40):
            sender.publish(topic, b"%d" % number)
        mortal_broker.restart()

        assert wait_for(receiver, Connected)
        arrived = []
        while len(set(arrived)) < 40:
            received = wait_for(receiver, Received)
            received.acknowledge()
            # At least once: the killed broker may have forgotten an acknowledgement of before.
            if received.payload.isdigit():
                arrived.append(int(received.payload))
        assert list(dict.fromkeys(arrived)) == list(range(40))
        tokens = {wait_for(sender, Published).token for _ in range(40)}
        assert tokens == set(range(2, 42))
        assert sender.traffic.sent_messages == 41


def test_an_old_acknowledgement_is_thrown_away(mortal_broker: MosquittoBroker) -> None:
    topic, name = unique("stale"), unique("reader")
    with open_link(mortal_broker, name) as reader:
        reader.subscribe(topic)
        reader.publish(topic, b"first")
        stale = wait_for(reader, Received)
        time.sleep(0.1)
        mortal_broker.restart()
        wait_for(reader, Connected)
        again = wait_for(reader, Received)
        assert again.payload == b"first"
        stale.acknowledge()
        mortal_broker.restart()
        wait_for(reader, Connected)
        third = wait_for(reader, Received)
        assert third.payload == b"first"
        third.acknowledge()


def test_retained_messages_are_not_sent_again_after_a_reconnect(mortal_broker: MosquittoBroker) -> None:
    topic = unique("retained")
    with open_link(mortal_broker) as link:
        link.subscribe(topic)
        link.publish(topic, b"head", retain=True)
        wait_for(link, Received).acknowledge()
        assert quiet(link, Received)
        mortal_broker.restart()
        assert wait_for(link, Connected).session_present
        assert quiet(link, Received)


def test_close_does_not_wait_for_a_broker_that_is_not_there(mortal_broker: MosquittoBroker) -> None:
    with open_link(mortal_broker) as link:
        wait_for(link, Connected)
        mortal_broker.kill()
        wait_for(link, Disconnected)
        link.publish("a", b"never sent")
        started = time.monotonic()
        link.close([Message("status", b"gone")], timeout=20.0)
        assert time.monotonic() - started < 15.0
        assert link.unfinished == 2
