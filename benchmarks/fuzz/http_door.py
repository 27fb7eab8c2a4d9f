"""What strangers send to the HTTP door of `fedmedclip serve`: whole connections, from parser to routes.

An input is sections: the head of a request, then the body piece by piece. With the lowest bit of the first
section's byte a right Content-Length is put into the head, so that what is changed in a body stays one.
"""

import asyncio
import json
import re
import secrets
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.server import ServerState

from benchmarks.fuzz.mutations import by_section, mutated_bytes, mutated_text
from benchmarks.fuzz.sections import join, split
from benchmarks.fuzz.target import Take, Target
from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.edge_client.serving.answer import Answer, Result
from fedmedclip.edge_client.serving.arrival import Accepted, Arrival
from fedmedclip.edge_client.serving.http.application import application
from fedmedclip.edge_client.serving.http.backing import Backing, Figures, Model
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.web.connection import PatientConnection

_COUNTED = 1
_PROVENANCE = Provenance(software="fedmedclip-edge 0", bundle="ab" * 32, model="example", precision="fp32")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n")
_ALLOWED = {100, 200, 202, 400, 401, 403, 404, 405, 411, 413, 415, 421, 422, 503}
_ID = "0" * 32


class _Queue:
    """Answers at once what is kept in memory for one input."""

    def __init__(self) -> None:
        self.arrivals: dict[str, Arrival] = {}
        self.known: dict[str, str] = {}

    def accept(self, arrival: Arrival) -> "Future[Accepted]":
        if isinstance(arrival.content, Path):
            arrival.content.unlink()
        id = self.known.setdefault(arrival.key, secrets.token_hex(16))
        known = id in self.arrivals
        self.arrivals.setdefault(id, arrival)
        return _settled(Accepted(id, known))

    def wait(self, id: str) -> "Future[Answer]":
        answer = self.answer(id)
        assert answer is not None
        return _settled(answer)

    def answer(self, id: str) -> Answer | None:
        if (arrival := self.arrivals.get(id)) is None:
            return None
        results = [Result(outcome="answered", label="tumor")]
        return Answer(
            id=id, door="http", name=arrival.name, received_at=0, answered_at=1, results=results,
            provenance=_PROVENANCE,
        )  # fmt: skip

    def arrival(self, id: str) -> Arrival | None:
        return self.arrivals.get(id)

    def state_of(self, id: str) -> str | None:
        return "answered" if id in self.arrivals else None


def _settled(result: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_result(result)
    return future


class _Transport(asyncio.Transport):
    """Keeps what is written to the one end of a connection."""

    def __init__(self, connection: PatientConnection) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self._connection = connection
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def _prepare(folder: Path) -> Take:
    settings = HttpSettings(largest_upload_bytes=1 << 20, most_files=4, server_names=["clinic"])
    figures = Figures(
        results={}, labels={}, seconds=(1.0,), waited=[0, 0], waited_sum=0, waiting=0, aside=0,
        deliveries_waiting={}, drift={},
    )  # fmt: skip
    queue = _Queue()
    backing = Backing(
        queue,
        folder,
        lambda: "",
        lambda: Model(class_names=["tumor"], provenance=_PROVENANCE),
        lambda: figures,
    )
    loop = asyncio.new_event_loop()
    app = application(settings, None, backing, loop.create_future(), loop.create_future())
    config = uvicorn.Config(
        app, ws="none", lifespan="off", log_config=None, h11_max_incomplete_event_size=16384
    )
    config.load()

    def take(data: bytes) -> None:
        queue.arrivals.clear()
        queue.known.clear()
        written = loop.run_until_complete(_connection(config, _pieces(data)))
        assert not list(folder.iterdir()), "a file is left"
        _require_answers(written)

    return take


def _pieces(data: bytes) -> list[bytes]:
    sections = split(data) or [(0, b"")]
    head, body = sections[0][1], [content for _, content in sections[1:]]
    if sections[0][0] & _COUNTED:
        length = f"Content-Length: {sum(map(len, body))}\r\n".encode()
        first, line_end, rest = head.partition(b"\r\n")
        head = first + line_end + length + rest
    # No transport hands over an empty piece.
    return [piece for piece in (head, *body) if piece]


async def _connection(config: uvicorn.Config, pieces: list[bytes]) -> bytes:
    state = ServerState()
    connection = PatientConnection(config, state, {}, asyncio.get_running_loop())
    transport = _Transport(connection)
    connection.connection_made(transport)
    for piece in pieces:
        if transport.is_closing():
            break
        connection.data_received(piece)
        await asyncio.sleep(0)
    # The client waits for its answers, but for one to half a request there is none.
    while state.tasks and connection.conn.their_state is not h11.SEND_BODY and not transport.is_closing():
        await asyncio.wait(list(state.tasks))
        await asyncio.sleep(0)
    transport.close()
    await asyncio.sleep(0)
    if state.tasks:
        await asyncio.wait(list(state.tasks))
    return bytes(transport.written)


def _require_answers(written: bytes) -> None:
    """Raise AssertionError unless what was written is answers that the door may give."""
    if not written:
        return
    found = _STATUS.match(written)
    assert found is not None, written[:100]
    statuses = {int(status) for status in _STATUS.findall(written)}
    assert statuses <= _ALLOWED, statuses
    head, _, body = written.partition(b"\r\n\r\n")
    if b"application/problem+json" in head and written.count(b"HTTP/1.1 ") == 1 and body:
        problem = json.loads(body)
        assert problem["status"] == int(found[1])
        assert problem["detail"].isprintable()


def _seeds() -> list[bytes]:
    part = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    form = [part, b"first", b"\r\n" + part, b"second\r\n--xyz--\r\n"]
    host = b"Host: localhost\r\n"
    chunks = b"5\r\nimage\r\n5;x=y\r\nbytes\r\n0\r\n\r\n"
    post = b"POST /v1/predict HTTP/1.1\r\n" + host
    typed = b"Content-Type: multipart/form-data; boundary=xyz\r\n"
    keyed = b"Idempotency-Key: one\r\nPrefer: respond-async, wait=5\r\n"
    gets = [b"/v1/health", b"/metrics", b"/v1/model", b"/openapi.json", b"/v1/answers/" + _ID.encode(), b"/"]
    many = b"".join(b"GET %b HTTP/1.1\r\n" % path + host + b"\r\n" for path in gets)
    return [
        join([(_COUNTED, post + b"Content-Type: image/png\r\n\r\n"), (0, b"image"), (0, bytes(100_000))]),
        join([(_COUNTED, post + typed + keyed + b"\r\n"), *((0, piece) for piece in form)]),
        join([(0, post + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"), (0, chunks)]),
        join([(_COUNTED, b"POST /v1/predict?explain=1&wait=0 HTTP/1.1\r\n" + host + b"\r\n"), (0, b"x")]),
        join([(0, many)]),
        join([(0, b"OPTIONS * HTTP/1.1\r\n" + host + b"Origin: null\r\nAuthorization: Bearer x\r\n\r\n")]),
    ]


TARGETS = (
    Target(
        "http-door",
        _prepare,
        (),
        _seeds,
        by_section(mutated_text, mutated_bytes, kinds=2),
        weight=0.6,
    ),
)
