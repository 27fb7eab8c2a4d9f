"""A queue in memory that answers at once, later, or not at all; and a door in front of it."""

import json
import socket
import time
from concurrent.futures import Future
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from secrets import token_hex
from threading import Lock, Timer

import msgspec

from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.edge_client.serving.answer import Answer, Result
from fedmedclip.edge_client.serving.arrival import Accepted
from fedmedclip.edge_client.serving.http.backing import Backing, Figures, Model
from fedmedclip.edge_client.serving.http.door import HttpDoor
from fedmedclip.edge_client.serving.http.settings import HttpSettings

PROVENANCE = Provenance(software="fedmedclip-edge 0", bundle="ab" * 32, model="example", precision="fp32")
IMAGE = b"\x89PNG pixels"


class Queue:
    """Answers what begins like a PNG as `tumor`, all else as unreadable, after `seconds`; None: never."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = Lock()
        self.empty()

    def empty(self):
        self.seconds = 0.0
        self.refusal = None
        self.contents, self.arrivals, self.known, self.answers, self.waiters = {}, {}, {}, {}, {}

    def accept(self, arrival):
        done = Future()
        if self.refusal is not None:
            done.set_exception(self.refusal)
            return done
        content = arrival.content
        if isinstance(content, Path):
            assert content.parent == self.folder
            assert content.stat().st_mode & 0o777 == 0o600
            content = content.read_bytes()
            arrival.content.unlink()
        with self.lock:
            if (known := self.known.get(arrival.key)) is not None:
                done.set_result(Accepted(known, True))
                return done
            identity = self.known[arrival.key] = token_hex(16)
            self.arrivals[identity], self.contents[identity] = arrival, content
        if self.seconds == 0:
            self.settle(identity)
        elif self.seconds is not None:
            Timer(self.seconds, self.settle, [identity]).start()
        done.set_result(Accepted(identity, False))
        return done

    def settle(self, identity):
        arrival, now = self.arrivals[identity], time.time()
        result = Result(outcome="unreadable", reason="it is no image that can be read")
        if self.contents[identity].startswith(b"\x89PNG"):
            result = Result(
                outcome="answered", label="tumor", probabilities={"no_tumor": 0.25, "tumor": 0.75}
            )
        answer = Answer(
            id=identity, door="http", name=arrival.name, received_at=now, answered_at=now, results=[result],
            provenance=PROVENANCE,
        )  # fmt: skip
        with self.lock:
            self.answers[identity] = answer
            waiters = self.waiters.pop(identity, [])
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(answer)

    def wait(self, identity):
        future = Future()
        with self.lock:
            if (answer := self.answers.get(identity)) is None:
                self.waiters.setdefault(identity, []).append(future)
        if answer is not None:
            future.set_result(answer)
        return future

    def answer(self, identity):
        return self.answers.get(identity)

    def arrival(self, identity):
        return self.arrivals.get(identity)

    def state_of(self, identity):
        return "waiting" if identity in self.arrivals else None


def backing_of(queue, **replaced):
    """Return what a door needs, of a queue in memory."""
    figures = Figures(
        results={("http", "answered"): 3, ("dicom", "unreadable"): 1}, labels={"tumor": 3},
        seconds=(0.1, 1.0), waited=[2, 1, 1], waited_sum=4.5, waiting=2, aside=1,
        deliveries_waiting={"dicom": 5},
        drift={"distance": 0.5},
    )  # fmt: skip
    parts = {
        "queue": queue,
        "incoming": queue.folder,
        "fault": lambda: "",
        "model": lambda: Model(class_names=["no_tumor", "tumor"], provenance=PROVENANCE, level=0.9),
        "figures": lambda: figures,
    }
    return Backing(**parts | replaced)


@contextmanager
def door_of(queue, settings=None, **replaced):
    """Give an open door on a port of its own."""
    settings = msgspec.structs.replace(settings or HttpSettings(), port=0)
    door = HttpDoor(settings, backing_of(queue, **replaced))
    door.start()
    try:
        yield door
    finally:
        door.stop()


def asked(door, method, path, body=None, headers=None):
    """Return status, headers and JSON of one request."""
    connection = HTTPConnection("127.0.0.1", door.port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    kind = response.headers.get_content_type()
    return response.status, response.headers, json.loads(content) if kind.endswith("json") else content


def raw(door, data, seconds=10.0):
    """Send bytes and return all that comes until the connection ends."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=seconds) as connection:
        connection.sendall(data)
        found = b""
        while piece := connection.recv(65536):
            found += piece
        return found


def until(holds, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
