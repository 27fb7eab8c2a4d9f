"""Clients that hold connections: slow ones, many, and such as talk something else."""

import json
import socket
import time

import pytest

from fedmedclip.edge_client.serving.http import uploads
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.web import connection as connections
from tests.edge_client.serving.http.standin import asked, door_of, raw, until

HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
GET = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "begun", [b"", b"GET / HTTP/1.1\r\nHost: loc", b"\r\n", GET + b"GET / HT", GET + b"\r\n"]
)
def test_a_header_that_does_not_come_ends_the_connection(door, monkeypatch, begun):
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(begun[: len(GET)])
        if begun.startswith(GET):
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            connection.sendall(begun[len(GET) :])
        began = time.monotonic()
        while connection.recv(65536):
            pass
    assert time.monotonic() - began < 3


def test_a_body_that_stops_ends_the_request(door, monkeypatch):
    monkeypatch.setattr(uploads, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    found = raw(door, HEAD + b"begun")
    assert found.startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_ends_the_request(queue, monkeypatch):
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.1)
    with (
        door_of(queue, HttpSettings(longest_upload_seconds=0.3)) as door,
        socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection,
    ):
        connection.sendall(HEAD)
        connection.settimeout(0.05)
        found = b""
        for _ in range(40):
            connection.sendall(b".")
            try:
                found = connection.recv(65536)
                break
            except TimeoutError:
                continue
    assert found.startswith(b"HTTP/1.1 408 ")


def test_connections_beyond_the_limit_are_told_so(queue):
    with door_of(queue, HttpSettings(most_connections=2)) as door:
        held = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(2)]
        time.sleep(0.05)
        found = raw(door, b"")
        assert found.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in found
        for connection in held:
            connection.close()
        time.sleep(0.05)
        assert asked(door, "GET", "/v1/health")[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n bad\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /v1/health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: " + b"b" * 40_000,
    ],
)
def test_what_is_no_http_is_a_problem(door, sent, caplog):
    found = raw(door, sent)
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["status"] == 400
    assert not caplog.records


def test_requests_follow_each_other_on_one_connection(door):
    found = raw(door, GET + GET + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert found.count(b"HTTP/1.1 200 ") == 3


def test_who_expects_to_go_on_is_told_before_the_body(door, queue):
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(HEAD.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
    too_long = HEAD.replace(b"1000", b"10000000")
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(too_long.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_breaks_its_chunks_is_a_problem_and_leaves_no_file(door, queue):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = raw(door, head + b"30d40\r\n" + bytes(200_000) + b"no end of a chunk")
    assert found.startswith(b"HTTP/1.1 400 ")
    until(lambda: not any(queue.folder.iterdir()))
