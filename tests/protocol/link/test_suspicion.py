"""A broker that hangs up without a word, as MQTT 3.1.1 has it, is understood, and chance convicts nobody."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.link.limits import LEAST_PAYLOAD_BYTES
from fedmedclip.protocol.link.link import Connected, Disconnected, Link, Message, Published, PublishRefused
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.link.suspicion import ALIKE, ALIKE_FOR_ALL, MessageSuspicion, WillSuspicion
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.protocol.link.helpers import open_link, quiet, wait_for
from tests.protocol.link.test_scripted import scripted_broker
from tests.simulation.demo.real_federation import Federation, write_data

WILL = Message("fmc1/trial/status/a", b"gone", retain=True)
ACCEPTED_3 = bytes([0x20, 2, 0, 0])
NO_RETAINED = {"settings": ["retain_available false"]}
NO_ACKNOWLEDGEMENT = {"listener_settings": ["max_qos 0"]}
SMALL_PACKETS = {"settings": ["max_packet_size 600"]}


def fatal_ending(link: Link) -> Disconnected:
    return wait_for(link, Disconnected, lambda ending: ending.fatal)


@pytest.mark.parametrize("lines", [NO_RETAINED, NO_ACKNOWLEDGEMENT], ids=["retain", "quality"])
def test_a_broker_that_hangs_up_over_the_will_is_said_after_a_few_attempts(mosquitto_installed, lines):
    with MosquittoBroker(**lines) as broker, open_link(broker, will=WILL, protocol="3.1.1") as link:
        ending = fatal_ending(link)
    assert "hangs up on whoever leaves a last will" in ending.reason
    assert "QoS 0 alone or keeps no retained messages" in ending.reason
    assert "\n" not in ending.reason


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_a_broker_that_is_only_starting_gets_the_will_and_is_not_accused(protocol):
    hanging_up = [[]] * 7
    with scripted_broker(*hanging_up, [ACCEPTED_3], [ACCEPTED_3, b""]) as (settings, _):
        settings = LinkSettings(
            host=settings.host, port=settings.port, first_retry_seconds=0.05, longest_retry_seconds=0.1,
            protocol=protocol,
        )  # fmt: skip
        with Link(settings, client_id="a", will=WILL) as link:
            passed = []
            while not isinstance(event := link.next_event(10.0), Connected):
                assert event is not None, passed
                passed.append(event)
    assert not any(event.fatal for event in passed)


def test_a_broker_that_took_the_will_before_is_waited_for():
    """What changed lies elsewhere, and whoever changed it may change it back."""
    scripts = [[ACCEPTED_3], *[[]] * ALIKE, [ACCEPTED_3], [], [], [ACCEPTED_3]]
    with scripted_broker(*scripts, hears_last=False) as (settings, _):
        settings = msgspec.structs.replace(settings, protocol="3.1.1")
        with Link(settings, client_id="a", will=WILL) as link:
            wait_for(link, Connected)
            for _ in scripts[:-1]:
                assert not wait_for(link, Disconnected).fatal
            wait_for(link, Connected)


@given(attempts=st.lists(st.sampled_from(["hangs up", "accepts"]), max_size=40))
def test_only_a_broker_that_accepts_all_but_the_will_is_accused(attempts):
    suspicion = WillSuspicion(has_will=True)
    without_before = False
    for attempt in attempts:
        without = suspicion.leave_out
        if attempt == "accepts":
            suspicion.accepted(without=without)
            without_before = without
        else:
            assert suspicion.refused() is without_before
            if without_before:
                return


def test_a_party_without_a_will_is_never_asked_to_leave_it_out():
    suspicion = WillSuspicion(has_will=False)
    assert not any(suspicion.refused() or suspicion.leave_out for _ in range(20))


def test_a_broker_that_hangs_up_over_what_is_retained_is_said(mosquitto_installed):
    """As the aggregator publishes its plan; it leaves no will."""
    with MosquittoBroker(**NO_RETAINED) as broker, open_link(broker, protocol="3.1.1") as link:
        link.publish("fmc1/trial/plan", b"plan", retain=True)
        ending = fatal_ending(link)
    assert "each time that 4 bytes are sent on fmc1/trial/plan" in ending.reason
    assert "it keeps no retained messages (Mosquitto: retain_available true)" in ending.reason
    assert "\n" not in ending.reason


def test_a_broker_that_takes_only_tiny_packets_is_said(mosquitto_installed):
    with MosquittoBroker(**SMALL_PACKETS) as broker, open_link(broker, protocol="3.1.1") as link:
        link.publish("fmc1/trial/up/a", b"x" * LEAST_PAYLOAD_BYTES)
        ending = fatal_ending(link)
    assert "max_packet_size" in ending.reason
    assert "retained" not in ending.reason


@pytest.mark.slow
def test_what_a_broker_takes_is_learned_where_it_does_not_say_it(mosquitto_installed):
    limited = MosquittoBroker(settings=["max_packet_size 20000"])
    with limited as broker, open_link(broker, protocol="3.1.1") as link:
        small = link.publish("fmc1/trial/up/a", b"small")
        assert wait_for(link, Published).token == small
        while (size := link.largest_payload) > 20_000:
            large = link.publish("fmc1/trial/up/a", b"x" * size)
            wait_for(link, Connected, lambda event, half=size // 2: event.largest_payload == half)
            assert wait_for(link, PublishRefused).token == large
            assert link.largest_payload == size // 2
        assert size == 16_384
        token = link.publish("fmc1/trial/up/a", b"x" * size)
        assert wait_for(link, Published).token == token
        assert quiet(link, Disconnected)


@pytest.mark.slow
def test_a_federation_goes_through_a_broker_that_hangs_up_over_large_messages(tmp_path, mosquitto_installed):
    with MosquittoBroker(settings=["max_packet_size 24000"]) as broker:
        data = write_data(tmp_path / "data", ["site-a"])
        federation = Federation(
            tmp_path, broker, data, sites=["site-a"], rounds=1, codec="lossless", embedding_size=128
        )
        for path in tmp_path.glob("*/*.toml"):
            text = path.read_text().replace('protocol = "auto"', 'protocol = "3.1.1"')
            # One halving is enough; each takes the aggregator until its site asks again.
            text += "first_retry_seconds = 0.1\nlongest_retry_seconds = 0.2\nmaximum_message_bytes = 32768\n"
            path.write_text(text)
        federation.start("aggregator", "site-a")
        federation.wait_for_end()
        assert "hangs up over a message of" in federation.log_of("site-a")
        assert "hangs up over a message of" in federation.log_of("aggregator")


@given(tokens=st.lists(st.none() | st.integers(0, 3), max_size=40))
def test_only_the_same_message_again_and_again_is_suspect(tokens):
    suspicion = MessageSuspicion()
    for number, token in enumerate(tokens, 1):
        alike = len(set(tokens[max(0, number - ALIKE) : number])) == 1 and number >= ALIKE
        assert suspicion.hung_up(token) is (alike and token is not None)


def test_a_small_message_gives_up_all_only_after_many_endings_and_a_large_one_never():
    suspicion = MessageSuspicion()
    small, large = Message("a", b"x"), b"x" * (LEAST_PAYLOAD_BYTES + 1)
    for number in range(1, ALIKE_FOR_ALL + 1):
        assert suspicion.wants_control is (number == ALIKE_FOR_ALL)
        if number == ALIKE_FOR_ALL:
            suspicion.control_passed()
        suspicion.hung_up(7)
        assert bool(suspicion.lacking(small)) is (number == ALIKE_FOR_ALL)
    assert not suspicion.learn_limit(len(small.payload))
    assert suspicion.learn_limit(len(large))
    assert suspicion.largest_payload == LEAST_PAYLOAD_BYTES


def test_a_small_message_is_not_suspect_where_connections_end_without_it_too():
    suspicion = MessageSuspicion()
    for number in range(3 * ALIKE_FOR_ALL):
        suspicion.hung_up(None if suspicion.wants_control else 7)
        assert not suspicion.lacking(Message("a", b"x")), number


def test_a_broker_that_dies_as_soon_as_it_accepts_is_not_accused():
    """As one does that is killed, or runs out of memory, again and again before it acknowledges anything."""
    dying = [[ACCEPTED_3]] * (2 * ALIKE_FOR_ALL + 2)
    with scripted_broker(*dying, hears_last=False) as (settings, _):
        settings = msgspec.structs.replace(settings, protocol="3.1.1")
        with Link(settings, client_id="a") as link:
            link.publish("fmc1/trial/plan", b"plan", retain=True)
            for _ in dying:
                assert not wait_for(link, Disconnected).fatal
            assert link.unfinished == 1


def test_a_broker_that_is_killed_again_and_again_is_not_accused(mosquitto_installed):
    with MosquittoBroker() as broker, open_link(broker, will=WILL, protocol="3.1.1") as link:
        for number in range(ALIKE_FOR_ALL + 1):
            link.publish("fmc1/trial/plan", b"plan %d" % number, retain=True)
            wait_for(link, Connected)
            broker.kill()
            assert not wait_for(link, Disconnected).fatal
            broker.start()
        until = time.monotonic() + 20
        while link.unfinished and time.monotonic() < until:
            link.next_event(0.2)
        assert link.unfinished == 0
