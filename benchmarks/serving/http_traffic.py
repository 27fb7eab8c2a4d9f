"""HTTP requests on kept-alive connections, from one light thread: closed loop, or open loop at given times.

In an open loop a request's time counts from when it was due and not from when a connection was free for it,
so that a service that stalls is charged for all that would have come meanwhile (no coordinated omission).
"""

import random
import re
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_READ_BYTES = 1 << 16
_LONGEST_SECONDS = 60.0


@dataclass
class Traffic:
    """What came of requests: `seconds` of each, in the order of the answers, and their `statuses`."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wall_seconds: float = 0.0
    client_cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers (status 200) a second."""
        return self.statuses[200] / self.wall_seconds

    def percentile(self, percent: float) -> float:
        """Return a percentile of the seconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def request(port: int, body: bytes, media_type: str = "image/jpeg", *headers: str) -> bytes:
    """Return a whole request to answer an image."""
    lines = [
        "POST /v1/predict HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}", *headers,
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode() + body


def closed_loop(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, count: int | None = None
) -> Traffic:
    """Send the next request on a connection once the one before is answered, for a time or up to a count."""
    with _Loop(port, connections) as loop:
        until = loop.began + seconds
        sent = 0
        while True:
            while loop.idle and (sent < count if count is not None else time.perf_counter() < until):
                loop.send(requests[sent % len(requests)], time.perf_counter())
                sent += 1
            if not loop.busy:
                return loop.finished()
            loop.receive(None)


def poisson_times(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yield the times of a Poisson process, in seconds from its start."""
    chance = random.Random(seed)
    now = chance.expovariate(rate)
    while now < seconds:
        yield now
        now += chance.expovariate(rate)


def open_loop(port: int, requests: Sequence[bytes], times: Iterator[float], connections: int = 64) -> Traffic:
    """Send a request at each of the times, whatever has become of those before."""
    with _Loop(port, connections) as loop:
        due: deque[tuple[float, bytes]] = deque()
        coming = ((loop.began + at, requests[number % len(requests)]) for number, at in enumerate(times))
        following = next(coming, None)
        while True:
            now = time.perf_counter()
            while following is not None and following[0] <= now:
                due.append(following)
                following = next(coming, None)
            while due and loop.idle:
                at, body = due.popleft()
                loop.send(body, at)
            if following is None and not due and not loop.busy:
                return loop.finished()
            loop.receive(None if following is None else following[0] - time.perf_counter())


class _Loop:
    """Connections, and which of them wait for an answer since when."""

    def __init__(self, port: int, connections: int) -> None:
        self._selector = selectors.DefaultSelector()
        self.idle: list[socket.socket] = []
        self.busy: dict[socket.socket, tuple[float, bytearray]] = {}
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ)
            self.idle.append(connection)
        self._traffic = Traffic()
        self._cpu = time.thread_time()
        self.began = time.perf_counter()

    def __enter__(self) -> "_Loop":
        return self

    def __exit__(self, *_: object) -> None:
        for connection in [*self.idle, *self.busy]:
            connection.close()
        self._selector.close()

    def send(self, data: bytes, due: float) -> None:
        """Send a request, whose time counts from `due`."""
        # The last one used: a connection that is never needed costs nothing.
        connection = self.idle.pop()
        self.busy[connection] = (due, bytearray())
        connection.sendall(data)

    def receive(self, seconds: float | None) -> None:
        """Take what has come, or comes within so many seconds. AssertionError for a silence without end."""
        patience = _LONGEST_SECONDS if seconds is None else max(0.0, seconds)
        events = self._selector.select(patience)
        assert events or seconds is not None, f"{len(self.busy)} requests without an answer for {patience} s"
        for key, _ in events:
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(_READ_BYTES)
            if not data and connection not in self.busy:
                self._again(connection)
                continue
            assert data, "the service closed a connection that waits for an answer"
            due, held = self.busy[connection]
            held += data
            if (status := _status_of_whole(held)) is not None:
                del self.busy[connection]
                self.idle.append(connection)
                self._traffic.seconds.append(time.perf_counter() - due)
                self._traffic.statuses[status] += 1

    def finished(self) -> Traffic:
        """Return what came of all."""
        self._traffic.wall_seconds = time.perf_counter() - self.began
        self._traffic.client_cpu_seconds = time.thread_time() - self._cpu
        return self._traffic

    def _again(self, connection: socket.socket) -> None:
        """Replace a connection that the service closed because it was not used for long."""
        port = connection.getpeername()[1]
        self._selector.unregister(connection)
        self.idle.remove(connection)
        connection.close()
        new = socket.create_connection(("127.0.0.1", port))
        new.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(new, selectors.EVENT_READ)
        self.idle.append(new)


def _status_of_whole(held: bytearray) -> int | None:
    """Return the status of a response that is whole, None of a part of one."""
    end = held.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = _LENGTH.search(held, 0, end + 2)
    if length is None or len(held) < end + 4 + int(length[1]):
        return None
    return int(held[9:12])
