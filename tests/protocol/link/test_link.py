"""The MQTT link against real brokers: what arrives, what is refused, what is counted."""

import itertools
import time
from pathlib import Path

import pytest

from fedmedclip.protocol.errors import LinkError
from fedmedclip.protocol.link.events import UNREAD_LIMIT
from fedmedclip.protocol.link.limits import SENDING_WINDOW
from fedmedclip.protocol.link.link import (
    Connected,
    Disconnected,
    Link,
    LinkSettings,
    Message,
    Published,
    PublishRefused,
    Received,
)
from fedmedclip.simulation.processes.brokers import EmbeddedBroker, MosquittoBroker, free_port
from tests.protocol.link.helpers import open_link, quiet, unique, wait_for


@pytest.mark.parametrize(("wanted", "spoken"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_a_message_goes_round(mosquitto: MosquittoBroker, wanted: str, spoken: str) -> None:
    topic = unique("round")
    with open_link(mosquitto, protocol=wanted) as link:
        assert wait_for(link, Connected) == Connected(False, spoken, link.largest_payload)
        link.subscribe(f"{topic}/#")
        token = link.publish(f"{topic}/a", b"\x00\xff payload")
        received = wait_for(link, Received)
        assert (received.topic, received.payload, received.retained) == (
            f"{topic}/a",
            b"\x00\xff payload",
            False,
        )
        received.acknowledge()
        received.acknowledge()
        assert token == 1


def test_published_is_reported_per_token_and_counters_are_exact(mosquitto: MosquittoBroker) -> None:
    topic = unique("count")
    payloads = [bytes([number]) * (number * 37) for number in range(60)]
    with open_link(mosquitto) as link:
        link.subscribe(topic)
        tokens = [link.publish(topic, payload) for payload in payloads]
        published, received = set(), []
        while len(published) < len(tokens) or len(received) < len(payloads):
            event = wait_for(link, Published | Received)  # type: ignore[arg-type]
            if isinstance(event, Published):
                published.add(event.token)
            else:
                received.append(event.payload)
                event.acknowledge()
        assert published == set(tokens)
        assert received == payloads
        assert link.unfinished == 0
        total = sum(map(len, payloads))
        assert link.sent_bytes == link.received_bytes == total
        assert link.traffic.sent_messages == link.traffic.received_messages == len(payloads)


@pytest.mark.slow
def test_falls_back_to_3_1_1_on_the_embedded_broker(embedded_broker: EmbeddedBroker) -> None:
    topic = unique("old")
    with open_link(embedded_broker) as link:
        first = link.next_event(30.0)
        assert isinstance(first, Connected)
        assert first.protocol == "3.1.1"
        link.subscribe(topic)
        link.publish(topic, b"hello")
        received = wait_for(link, Received)
        received.acknowledge()
        assert received.payload == b"hello"


def test_retained_message_once_per_process(mosquitto: MosquittoBroker) -> None:
    topic, name = unique("retained"), unique("reader")
    with open_link(mosquitto) as writer:
        writer.publish(topic, b"state", retain=True)
        wait_for(writer, Published)
    for session_present in (False, True):
        with open_link(mosquitto, name) as reader:
            assert wait_for(reader, Connected).session_present is session_present
            reader.subscribe(topic)
            received = wait_for(reader, Received)
            assert (received.payload, received.retained) == (b"state", True)
            received.acknowledge()


def test_qos_0_is_refused_without_a_connection_and_sent_with_one(mosquitto: MosquittoBroker) -> None:
    link = Link(LinkSettings(host="127.0.0.1", port=free_port()), client_id=unique("absent"))
    with link:
        token = link.publish("telemetry", b"1", qos=0)
        refused = wait_for(link, PublishRefused)
        assert (refused.token, refused.topic) == (token, "telemetry")
        assert "no connection" in refused.reason
        assert link.unfinished == 0
    with open_link(mosquitto) as link:
        wait_for(link, Connected)
        token = link.publish(unique("telemetry"), b"1", qos=0)
        assert wait_for(link, Published).token == token


def test_too_large_or_malformed_is_refused_before_sending(mosquitto: MosquittoBroker) -> None:
    with open_link(mosquitto, maximum_message_bytes=5000) as link:
        topic = unique("large")
        link.publish(topic, b"x" * 5000)
        with pytest.raises(LinkError, match=r"5001 bytes .* broker\.maximum_message_bytes = 5000"):
            link.publish(topic, b"x" * 5001)
        wait_for(link, Published)
        for bad_topic in ("", "a/+", "a/#", "a\0b", "x" * 70000):
            with pytest.raises(LinkError):
                link.publish(bad_topic, b"")
        for bad_filter in ("", "a/#/b", "a+", "a/b#", "\0"):
            with pytest.raises(LinkError):
                link.subscribe(bad_filter)
        with pytest.raises(LinkError, match="QoS 2"):
            link.publish(topic, b"", qos=2)
        assert link.sent_bytes == 5000


@pytest.mark.parametrize("setting", ["max_packet_size 3000", "message_size_limit 3000"])
def test_a_message_above_the_brokers_limit_does_not_block_the_others(
    mosquitto_installed: None, setting: str
) -> None:
    with MosquittoBroker(settings=[setting]) as broker, open_link(broker) as link:
        good = [link.publish("a", b"x" * 100) for _ in range(3)]
        bad = link.publish("a", b"x" * 4000)
        good += [link.publish("a", b"x" * 100) for _ in range(3)]
        done: list[int] = []
        refused = None
        while link.unfinished or refused is None or len(done) < len(good):
            event = wait_for(link, Published | PublishRefused)  # type: ignore[arg-type]
            if isinstance(event, Published):
                done.append(event.token)
            else:
                refused = event
        assert sorted(done) == good
        assert refused.token == bad
        assert "4000 bytes" in refused.reason


def test_a_topic_that_the_broker_refuses(mosquitto_installed: None, tmp_path: Path) -> None:
    rules = tmp_path / "rules.acl"
    rules.write_text("topic readwrite open/#\n")
    with MosquittoBroker(settings=[f"acl_file {rules}"]) as broker, open_link(broker) as link:
        forbidden = link.publish("secret", b"x")
        allowed = link.publish("open/a", b"x")
        refused = wait_for(link, PublishRefused)
        assert (refused.token, refused.topic) == (forbidden, "secret")
        assert "not authorized" in refused.reason
        assert wait_for(link, Published).token == allowed


def test_no_broker_is_said_in_words_with_growing_waits() -> None:
    port = free_port()
    settings = LinkSettings(host="127.0.0.1", port=port, first_retry_seconds=0.05, longest_retry_seconds=0.2)
    with Link(settings, client_id="lonely") as link:
        started = time.monotonic()
        reasons = [wait_for(link, Disconnected) for _ in range(5)]
        assert time.monotonic() - started > 0.05 + 3 * 0.1
    assert not any(event.fatal for event in reasons)
    assert reasons[0].reason.startswith(
        f"no broker at 127.0.0.1:{port} (connection refused); trying again in"
    )


def test_an_unknown_host_is_not_fatal() -> None:
    with Link(LinkSettings(host="no-such-host.invalid"), client_id="lost") as link:
        ending = wait_for(link, Disconnected)
    assert not ending.fatal
    assert "no-such-host.invalid" in ending.reason


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_link_says_when_its_thread_has_died(mosquitto: MosquittoBroker) -> None:
    def fail() -> None:
        raise SystemExit

    with open_link(mosquitto) as link:
        wait_for(link, Connected)
        link._network.post(fail)
        assert wait_for(link, Disconnected) == Disconnected(
            "the MQTT network thread ended unexpectedly", True
        )


def test_an_error_on_the_network_thread_costs_a_reconnect_only(mosquitto: MosquittoBroker) -> None:
    def fail() -> None:
        raise ValueError("surprise")

    with open_link(mosquitto) as link:
        wait_for(link, Connected)
        link._network.post(fail)
        ending = wait_for(link, Disconnected)
        assert not ending.fatal
        assert "surprise" in ending.reason
        assert wait_for(link, Connected).session_present


def test_will_above_the_limit_is_refused(mosquitto: MosquittoBroker) -> None:
    with pytest.raises(LinkError):
        open_link(mosquitto, will=Message("status", b"x" * 200_000))


def test_a_slow_main_loop_holds_the_broker_back_and_loses_nothing(mosquitto: MosquittoBroker) -> None:
    topic, total = unique("flood"), 400
    with open_link(mosquitto) as sender, open_link(mosquitto, protocol="3.1.1") as reader:
        reader.subscribe(topic)
        reader.publish(topic, b"subscribed")
        wait_for(reader, Received).acknowledge()
        for number in range(total):
            sender.publish(topic, number.to_bytes(4, "big") * 100)
        while sender.unfinished:
            sender.next_event(0.1)
        assert reader.traffic.received_messages < total
        for number in range(total):
            received = wait_for(reader, Received)
            assert int.from_bytes(received.payload[:4], "big") == number
            received.acknowledge()


def test_unread_messages_are_bounded_even_with_qos_0(mosquitto: MosquittoBroker) -> None:
    topic, total = unique("telemetry"), 500
    with open_link(mosquitto) as sender, open_link(mosquitto) as reader:
        reader.subscribe(topic)
        reader.publish(topic, b"subscribed")
        wait_for(reader, Received).acknowledge()
        wait_for(sender, Connected)
        for _ in range(total):
            sender.publish(topic, b"x" * 1000, qos=0)
        while sender.unfinished:
            sender.next_event(0.1)
        time.sleep(0.3)
        assert reader.traffic.received_messages <= 1 + UNREAD_LIMIT + SENDING_WINDOW
        for _ in range(total):
            wait_for(reader, Received).acknowledge()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_two_clients_with_one_name_are_told_so(mosquitto: MosquittoBroker, protocol: str) -> None:
    """Mosquitto before 2.0.15 closes the older connection without saying why, as every 3.1.1 broker does."""
    name = unique("twin")
    with open_link(mosquitto, name, protocol=protocol) as first:
        wait_for(first, Connected)
        with open_link(mosquitto, name, protocol=protocol):
            ending = wait_for(first, Disconnected, lambda event: "another client" in event.reason)
            assert ending.fatal or name in ending.reason


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_is_retained_can_be_read_again_and_what_is_not_stays_silent(mosquitto, protocol):
    kept, cleared = f"{unique('kept')}/plan", f"{unique('cleared')}/plan"
    with open_link(mosquitto, protocol=protocol) as link:
        link.subscribe(kept, cleared)
        for topic in (kept, cleared):
            link.publish(topic, b"plan", retain=True)
            wait_for(link, Received).acknowledge()
        link.publish(cleared, b"", retain=True)
        wait_for(link, Received).acknowledge()
        link.read_retained(kept, cleared, "never/subscribed")
        found = wait_for(link, Received)
        assert (found.topic, found.payload, found.retained) == (kept, b"plan", True)
        assert quiet(link, Received)


def test_a_last_will_may_be_made_anew_for_each_attempt_to_connect(mosquitto):
    wills = (Message("status", str(number).encode()) for number in itertools.count())
    made = []

    def next_will():
        made.append(next(wills))
        return made[-1]

    with open_link(mosquitto, will=next_will) as link:
        wait_for(link, Connected)
    assert len(made) == 1
