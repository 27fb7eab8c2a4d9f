"""The network connection below MQTT: made in time, through an HTTP proxy where there is one, and watched."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho

from fedmedclip.protocol.link.settings import LinkSettings, split_host_port

# Requests for a TCP connection go out at 0, 1, 3 and 7 s: where nothing passes, beginning again finds sooner
# than the fourth that something does. On a path of some seconds each way, no answer comes in this time.
NETWORK_SECONDS = 4.0
PATIENT_NETWORK_SECONDS = 8.0
# For a proxy to answer, and for TLS and WebSockets to be agreed on: several ways there and back, with
# certificates, which takes 8 s at 9.6 kbit/s.
AGREEMENT_SECONDS = 15.0
LONGEST_ANSWER = 8192
# struct tcp_info of Linux: segments that await an acknowledgement; milliseconds since the last one came.
_UNACKNOWLEDGED_OFFSET, _LAST_ACKNOWLEDGEMENT_OFFSET, _TCP_INFO_BYTES = 24, 56, 60


class LinkClient(paho.Client):
    """A paho client that gives each part of making a connection its time, and pings when it is told to.

    `proxy` is an HTTP proxy, host and port, that allows CONNECT (RFC 9110, section 9.3.6). TLS and
    WebSockets run inside the tunnel, so it sees only host and port of the broker. `lasting` says whether the
    session outlives its connections.
    """

    def __init__(self, *arguments: Any, proxy: tuple[str, int] | None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._http_proxy = proxy
        self.connect_timeout = AGREEMENT_SECONDS
        self.network_seconds = NETWORK_SECONDS
        self.lasting = True

    def ping(self) -> None:
        """Queue a PINGREQ packet."""
        self._send_pingreq()

    def _create_socket_connection(self) -> socket.socket:
        if self._http_proxy is None:
            return socket.create_connection((self.host, self.port), timeout=self.network_seconds)
        try:
            connection = socket.create_connection(self._http_proxy, timeout=self.network_seconds)
        except OSError as error:
            host, port = self._http_proxy
            raise ConnectionError(f"the HTTP proxy {host}:{port} cannot be reached: {error}") from error
        try:
            connection.settimeout(AGREEMENT_SECONDS)
            open_tunnel(connection, self.host, self.port)
        except BaseException:
            connection.close()
            raise
        return connection


def open_network(settings: LinkSettings, seconds: float) -> socket.socket:
    """Connect to the broker's port, through the HTTP proxy where there is one, and no further; OSError."""
    address = (settings.host, settings.broker_port)
    if settings.proxy is None:
        return socket.create_connection(address, timeout=seconds)
    connection = socket.create_connection(split_host_port(settings.proxy, "broker.proxy"), timeout=seconds)
    try:
        open_tunnel(connection, *address)
    except BaseException:
        connection.close()
        raise
    return connection


def unanswered_seconds(connection: Any) -> float:
    """Return for how long the other side's TCP has acknowledged nothing while it should; 0 where unknown.

    This tells a dead path from a slow one: a broker that is slow, or reads a large message over a thin link,
    acknowledges what has arrived. Linux alone says it; a proxy on the way answers for itself.
    """
    if not hasattr(socket, "TCP_INFO"):
        return 0.0
    with _twin(connection) as twin:
        information = twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (unacknowledged,) = struct.unpack_from("=I", information, _UNACKNOWLEDGED_OFFSET)
    (milliseconds,) = struct.unpack_from("=I", information, _LAST_ACKNOWLEDGEMENT_OFFSET)
    return milliseconds / 1000 if unacknowledged else 0.0


@contextmanager
def one_segment(connection: Any) -> Iterator[None]:
    """Let what is written meanwhile leave in full TCP segments, and the rest in one at the end.

    Where the system cannot, each write may become a segment, with 40 to 60 bytes of headers and an
    acknowledgement of its own.
    """
    if not hasattr(socket, "TCP_CORK"):
        yield
        return
    with _twin(connection) as twin:
        twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            yield
        finally:
            twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def acknowledge_with_data(connection: Any) -> None:
    """Let TCP wait with its acknowledgement for data that it can go with, or for more to acknowledge.

    Linux else acknowledges each segment at once after a silence, and forgets this setting at times: it has to
    be set after each read.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        with _twin(connection) as twin:
            twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)


def _twin(connection: Any) -> socket.socket:
    """Return the TCP socket below TLS and WebSockets, to be closed by the caller; the connection stays."""
    return socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)


def open_tunnel(connection: socket.socket, host: str, port: int) -> None:
    """Ask the HTTP proxy at the other end for a tunnel; ConnectionError with its answer when it refuses."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        # One byte at a time: what follows the empty line belongs to the tunnel.
        byte = connection.recv(1)
        if not byte or len(answer) > LONGEST_ANSWER:
            raise ConnectionError("the HTTP proxy closed the connection without a usable answer")
        answer += byte
    status_line = answer.split(b"\r\n", 1)[0].decode("latin-1")
    parts = status_line.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].startswith("2"):
        raise ConnectionError(f"the HTTP proxy refused the tunnel to {target}: {status_line}")
