"""The MQTT link against answers that no broker at hand gives: a server that plays fixed bytes."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from fedmedclip.protocol.link import network
from fedmedclip.protocol.link.connection import NETWORK_SECONDS, PATIENT_NETWORK_SECONDS, LinkClient
from fedmedclip.protocol.link.link import Connected, Disconnected, Link, LinkSettings, SubscriptionRefused
from tests.protocol.link.helpers import unique, wait_for
from tests.protocol.link.test_transports import Proxy

ACCEPTED_5 = bytes([0x20, 3, 0, 0, 0])
UNSUPPORTED_VERSION = bytes([0x20, 2, 0, 1])
SESSION_TAKEN_OVER = bytes([0xE0, 1, 0x8E])
SERVER_SHUTTING_DOWN = bytes([0xE0, 1, 0x8B])
NOT_A_PACKET = bytes([0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF])


def subscription_answer(code: int) -> bytes:
    return bytes([0x90, 4, 0, 1, 0, code])


@contextmanager
def scripted_broker(
    *connections: list[bytes], answer_seconds: float = 0.0, hears_last: bool = True
) -> Iterator[tuple[LinkSettings, list[int]]]:
    """Give one answer to each packet received, after a while, then hang up; one list per connection.

    It hangs up over the packet that follows its last answer, or at once where `hears_last` is false.

    Yields settings for a client, and the list of the MQTT versions that clients asked for.
    """
    versions: list[int] = []

    def heard() -> tuple[socket.socket, bytes]:
        """Wait for a client that says something: one that gave up meanwhile plays no part."""
        while True:
            connection, _ = server.accept()
            if asked := connection.recv(4096):
                return connection, asked
            connection.close()

    def play() -> None:
        for answers in connections:
            connection, asked = heard()
            with connection:
                versions.append(asked[8])
                for number, answer in enumerate(answers, 1):
                    time.sleep(answer_seconds)
                    connection.sendall(answer)
                    if (hears_last or number < len(answers)) and not connection.recv(4096):
                        break

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30.0)
        settings = LinkSettings(
            host="127.0.0.1",
            port=server.getsockname()[1],
            first_retry_seconds=0.05,
            longest_retry_seconds=0.1,
        )
        thread = threading.Thread(target=play)
        thread.start()
        yield settings, versions
        thread.join(30.0)


def test_session_taken_over_is_fatal() -> None:
    with (
        scripted_broker([ACCEPTED_5 + SESSION_TAKEN_OVER]) as (settings, _),
        Link(settings, client_id=unique("twin")) as link,
    ):
        ending = wait_for(link, Disconnected)
        assert ending.fatal
        assert "session taken over" in ending.reason
        assert "another client" in ending.reason


def test_a_broker_that_shuts_down_is_tried_again() -> None:
    script = [ACCEPTED_5 + SERVER_SHUTTING_DOWN]
    with scripted_broker(script, script) as (settings, versions), Link(settings, client_id="a") as link:
        for _ in range(2):
            assert wait_for(link, Connected).protocol == "5"
            ending = wait_for(link, Disconnected)
            assert not ending.fatal
            assert "server shutting down" in ending.reason
    assert versions == [5, 5]


def test_3_1_1_is_tried_when_the_broker_says_so() -> None:
    with (
        scripted_broker([UNSUPPORTED_VERSION], []) as (settings, versions),
        Link(settings, client_id="a") as link,
    ):
        assert "closed" in wait_for(link, Disconnected).reason
    assert versions == [5, 4]


def test_3_1_1_is_tried_when_the_broker_hangs_up_twice() -> None:
    with (
        scripted_broker([], [], [], [], []) as (settings, versions),
        Link(settings, client_id=unique("silent")) as link,
    ):
        for _ in range(5):
            assert not wait_for(link, Disconnected).fatal
    assert versions == [5, 5, 4, 4, 5]


def test_protocol_5_alone_is_fatal_when_the_broker_does_not_know_it() -> None:
    with scripted_broker([UNSUPPORTED_VERSION]) as (settings, _):
        only_5 = LinkSettings(host=settings.host, port=settings.port, protocol="5")
        with Link(only_5, client_id="a") as link:
            ending = wait_for(link, Disconnected)
            assert ending.fatal
            assert "unsupported protocol version" in ending.reason


def test_a_refused_subscription_is_reported() -> None:
    with scripted_broker([ACCEPTED_5, subscription_answer(0x87)]) as (settings, _):
        link = Link(settings, client_id="a")
        link.subscribe("secret/#")
        with link:
            refused = wait_for(link, SubscriptionRefused)
        assert refused == SubscriptionRefused("secret/#", "not authorized")


def test_garbage_is_survived() -> None:
    with (
        scripted_broker([NOT_A_PACKET], [ACCEPTED_5 + NOT_A_PACKET], [ACCEPTED_5]) as (settings, _),
        Link(settings, client_id="a") as link,
    ):
        wait_for(link, Connected)
        assert not wait_for(link, Disconnected).fatal
        wait_for(link, Connected)


@pytest.mark.slow
def test_a_broker_that_falls_silent_is_left_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes the ping, and gives no answer to it."""
    monkeypatch.setattr("fedmedclip.protocol.link.pulse.ANSWER_SECONDS", 0.2)
    with scripted_broker([ACCEPTED_5, b""], [ACCEPTED_5]) as (settings, _):
        impatient = msgspec.structs.replace(settings, keepalive_seconds=5)
        with Link(impatient, client_id="a") as link:
            wait_for(link, Connected)
            ending = wait_for(link, Disconnected)
            assert not ending.fatal
            assert "has not answered for" in ending.reason
            wait_for(link, Connected)


def test_a_slow_link_does_not_make_an_mqtt_5_broker_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the connection takes time, so the answer to CONNECT may take more than on a quick link."""
    monkeypatch.setattr("fedmedclip.protocol.link.network.UNDECIDED_HANDSHAKE_SECONDS", 0.3)
    proxy = Proxy(delay_seconds=0.4)
    with scripted_broker([ACCEPTED_5], answer_seconds=1.0) as (settings, versions):
        slow = msgspec.structs.replace(settings, proxy=proxy.address)
        with Link(slow, client_id="a") as link:
            assert wait_for(link, Connected).protocol == "5"
    proxy.close()
    assert versions == [5]


def test_every_second_attempt_has_time_for_an_answer_from_very_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """There and back in 6 s, a TCP connection is never made in 4."""
    given: list[float] = []

    def never_answered(client: LinkClient, settings: LinkSettings, protocol: str) -> None:
        given.append(client.network_seconds)
        raise TimeoutError

    monkeypatch.setattr(network, "connect", never_answered)
    settings = LinkSettings(first_retry_seconds=0.01, longest_retry_seconds=0.02)
    with Link(settings, client_id="a") as link:
        for _ in range(4):
            assert not wait_for(link, Disconnected).fatal
    assert given[:4] == [NETWORK_SECONDS, PATIENT_NETWORK_SECONDS] * 2
    assert PATIENT_NETWORK_SECONDS > 6.0
