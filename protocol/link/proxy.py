"""The paho client, able to pass an HTTP proxy without a further library."""

import socket
from typing import Any

import paho.mqtt.client as paho

LONGEST_ANSWER = 8192


class ProxiedClient(paho.Client):
    """A paho client that opens its TCP connection through the CONNECT method of an HTTP proxy.

    RFC 9110, section 9.3.6. TLS and WebSockets run inside the tunnel, so the proxy sees only host and port.
    """

    def __init__(self, *arguments: Any, proxy: tuple[str, int], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._http_proxy = proxy

    def _create_socket_connection(self) -> socket.socket:
        try:
            connection = socket.create_connection(self._http_proxy, timeout=self.connect_timeout)
        except OSError as error:
            host, port = self._http_proxy
            raise ConnectionError(f"the HTTP proxy {host}:{port} cannot be reached: {error}") from error
        try:
            open_tunnel(connection, self.host, self.port)
        except BaseException:
            connection.close()
            raise
        return connection


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
