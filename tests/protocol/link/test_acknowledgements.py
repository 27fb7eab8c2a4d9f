"""PUBACK packets travel with what the main loop publishes, and wait for it no longer than it works."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedmedclip.protocol.link.acknowledgements import (
    IDLE_SECONDS,
    LONGEST_SECONDS,
    MOST_HELD,
    Acknowledgements,
)
from fedmedclip.protocol.link.events import Inbox
from fedmedclip.protocol.link.link import Connected, Link, LinkSettings, Received
from tests.protocol.link.helpers import unique, wait_for

PUBACK, PUBLISH_WITH_QOS_1, DISCONNECT = 0x40, 0x32, 0xE0
# CONNACK of MQTT 5: accepted, ten topic aliases granted.
ACCEPTED = bytes([0x20, 6, 0, 0, 3, 0x22, 0, 10])


def publish_packet(packet: int, payload: bytes) -> bytes:
    body = b"\0\x01t" + packet.to_bytes(2) + b"\0" + payload
    return bytes([PUBLISH_WITH_QOS_1, len(body)]) + body


@contextmanager
def raw_broker(play: Callable[[socket.socket], None], connections: int = 1) -> Iterator[LinkSettings]:
    """Accept connections one after the other, take CONNECT, accept it, and let `play` go on."""

    def serve() -> None:
        for _ in range(connections):
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10.0)
                connection.recv(4096)
                connection.sendall(ACCEPTED)
                play(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10.0)
        thread = threading.Thread(target=serve)
        thread.start()
        yield LinkSettings(
            host="127.0.0.1",
            port=server.getsockname()[1],
            protocol="5",
            first_retry_seconds=0.05,
            longest_retry_seconds=0.1,
        )
        thread.join(10.0)


def test_an_acknowledgement_and_what_follows_from_the_message_are_one_write() -> None:
    heard: list[bytes] = []

    def play(connection: socket.socket) -> None:
        connection.sendall(publish_packet(7, b"head"))
        heard.append(connection.recv(4096))

    with raw_broker(play) as settings, Link(settings, client_id=unique("site")) as link:
        wait_for(link, Received).acknowledge()
        time.sleep(3 * IDLE_SECONDS)  # Training.
        link.publish("update", b"delta")
        wait_until(lambda: bool(heard))
    assert heard[0][:4] == bytes([PUBACK, 2, 0, 7])
    assert heard[0][4] == PUBLISH_WITH_QOS_1


def test_a_main_loop_that_waits_holds_no_acknowledgement_back() -> None:
    heard: list[float] = []

    def play(connection: socket.socket) -> None:
        # As a broker that sends the next message only when the one before is acknowledged.
        for packet in range(1, 6):
            connection.sendall(publish_packet(packet, b"head"))
            assert connection.recv(4096) == bytes([PUBACK, 2, 0, packet])
            heard.append(time.monotonic())

    with raw_broker(play) as settings, Link(settings, client_id=unique("site")) as link:
        for _ in range(5):
            wait_for(link, Received).acknowledge()
        wait_until(lambda: len(heard) == 5, meanwhile=lambda: link.next_event(0.2))
    assert heard[-1] - heard[0] < LONGEST_SECONDS


def test_what_was_acknowledged_is_sent_before_the_link_closes() -> None:
    heard: list[bytes] = []

    def play(connection: socket.socket) -> None:
        connection.sendall(publish_packet(7, b"head"))
        while data := connection.recv(4096):
            heard.append(data)

    with raw_broker(play) as settings, Link(settings, client_id=unique("site")) as link:
        wait_for(link, Received).acknowledge()
    assert b"".join(heard)[:5] == bytes([PUBACK, 2, 0, 7, DISCONNECT])


def test_only_few_are_held_and_none_for_long() -> None:
    sent: list[int] = []
    acknowledgements = Acknowledgements(Inbox())
    for number in range(MOST_HELD):
        assert not acknowledgements.due(0.0)
        acknowledgements.hold(lambda number=number: sent.append(number), 0.0)  # type: ignore[misc]
    assert acknowledgements.due(0.0)
    acknowledgements.send()
    assert sent == list(range(MOST_HELD))
    acknowledgements.hold(lambda: sent.append(99), 10.0)
    assert not acknowledgements.due(10.0 + LONGEST_SECONDS - 0.1)
    assert acknowledgements.due(10.0 + LONGEST_SECONDS)
    acknowledgements.forget()
    acknowledgements.send()
    assert 99 not in sent


def test_a_topic_travels_once_and_then_as_a_number_until_the_connection_ends() -> None:
    heard: list[bytes] = []

    def play(connection: socket.socket) -> None:
        first = connection.recv(4096)
        connection.sendall(bytes([PUBACK, 2, *first[11:13]]))
        heard.extend([first, connection.recv(4096)])

    with raw_broker(play, connections=2) as settings, Link(settings, client_id=unique("site")) as link:
        wait_for(link, Connected)
        link.publish("updates", b"one")
        wait_until(lambda: link.unfinished == 0)
        link.publish("updates", b"two")
        # The broker hangs up without having acknowledged it: it comes again, with its topic.
        wait_for(link, Connected)
        wait_until(lambda: len(heard) >= 3 or link.unfinished == 0)
        link.publish("updates", b"three")
        wait_until(lambda: len(heard) == 4)
    topic, alias = b"\0\x07updates", bytes([3, 0x23, 0, 1])
    assert [topic in packet for packet in heard] == [True, False, True, False]
    assert all(alias in packet for packet in heard)
    assert [packet[-3:] for packet in heard] == [b"one", b"two", b"two", b"ree"]


def wait_until(happened: Callable[[], bool], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait for something that other threads do."""
    until = time.monotonic() + 10.0
    while not happened():
        assert time.monotonic() < until
        meanwhile()
        time.sleep(0.01)
