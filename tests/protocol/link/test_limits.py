"""What a broker lacks is said at once, and what it limits is kept to."""

import pytest

from fedmedclip.protocol import topics
from fedmedclip.protocol.link.limits import LEAST_PAYLOAD_BYTES, PACKET_OVERHEAD, TOPIC_BYTES
from fedmedclip.protocol.link.link import Connected, Disconnected, Link, Message, Published
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.protocol.link.helpers import open_link, wait_for
from tests.protocol.link.test_scripted import ACCEPTED_5, scripted_broker, subscription_answer

LONGEST_STATUS_TOPIC = topics.status("f" * 32, "s" * 32)
LEAST_PACKET_BYTES = LEAST_PAYLOAD_BYTES + TOPIC_BYTES + PACKET_OVERHEAD


@pytest.mark.parametrize("will", [None, Message("status", b"gone", retain=True)], ids=["plain", "will"])
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"listener_settings": ["max_qos 0"]}, "QoS 1"),
        ({"settings": ["retain_available false"]}, "retained messages"),
    ],
    ids=["quality", "retain"],
)
def test_a_broker_that_lacks_what_every_federation_needs_is_fatal_at_once(
    mosquitto_installed: None, lines: dict[str, list[str]], words: str, will: Message | None
) -> None:
    with MosquittoBroker(**lines) as broker, open_link(broker, will=will) as link:
        event = link.next_event(5.0)
        assert isinstance(event, Disconnected)
        assert event.fatal
        assert words in event.reason
        assert f"127.0.0.1:{broker.port}" in event.reason
        assert "\n" not in event.reason


def test_mqtt_3_1_1_says_so_with_the_subscription(mosquitto_installed: None) -> None:
    with (
        MosquittoBroker(listener_settings=["max_qos 0"]) as broker,
        open_link(broker, protocol="3.1.1") as link,
    ):
        link.subscribe("a")
        ending = wait_for(link, Disconnected)
    assert ending.fatal
    assert "QoS 0 alone" in ending.reason


@pytest.mark.parametrize(("asked", "fatal"), [(1, True), (0, False)])
def test_only_a_lower_quality_than_asked_for_is_fatal(asked: int, fatal: bool) -> None:
    with scripted_broker([ACCEPTED_5, subscription_answer(0)]) as (settings, _):
        link = Link(settings, client_id="a")
        link.subscribe("a/#", qos=asked)
        with link:
            wait_for(link, Connected)
            # Where the subscription is good the script waits for one more packet, and then hangs up.
            link.publish("a", b"one more")
            assert wait_for(link, Disconnected).fatal is fatal


@pytest.mark.parametrize(
    ("packet", "payload"),
    [(None, 131_072), (262_144, 131_072), (50_000, 50_000 - TOPIC_BYTES - PACKET_OVERHEAD)],
)
def test_the_largest_payload_is_the_least_of_settings_and_broker(
    mosquitto_installed: None, packet: int | None, payload: int
) -> None:
    settings = [] if packet is None else [f"max_packet_size {packet}"]
    with MosquittoBroker(settings=settings) as broker, open_link(broker) as link:
        assert wait_for(link, Connected).largest_payload == payload
        assert link.largest_payload == payload
        token = link.publish(LONGEST_STATUS_TOPIC, b"x" * payload)
        assert wait_for(link, Published).token == token


def test_the_least_packets_that_are_of_use(mosquitto_installed: None) -> None:
    with (
        MosquittoBroker(settings=[f"max_packet_size {LEAST_PACKET_BYTES}"]) as broker,
        open_link(broker) as link,
    ):
        assert wait_for(link, Connected).largest_payload == LEAST_PAYLOAD_BYTES
    with (
        MosquittoBroker(settings=[f"max_packet_size {LEAST_PACKET_BYTES - 1}"]) as broker,
        open_link(broker) as link,
    ):
        ending = wait_for(link, Disconnected)
    assert ending.fatal
    assert f"{LEAST_PACKET_BYTES - 1} bytes, {LEAST_PACKET_BYTES} are needed" in ending.reason


def test_the_longest_topic_fits_what_is_set_aside_for_it() -> None:
    named = (topics.up, topics.down, topics.status)
    assert max(len(topic("f" * 32, "s" * 32)) for topic in named) <= TOPIC_BYTES
