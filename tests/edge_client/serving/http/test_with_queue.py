"""The door in front of the real queue: what it acknowledged is there after a restart, once."""

from contextlib import contextmanager

import pytest

from tests.edge_client.serving.http.standin import IMAGE, asked, door_of
from tests.edge_client.serving.http.test_multipart import body_of
from tests.edge_client.serving.queue_examples import finish, opened_queue

LATER = {"Content-Type": "image/png", "Prefer": "respond-async"}
LARGE = IMAGE + bytes(300_000)


@contextmanager
def opened(root, **more):
    """Give a queue in a folder, and the door in front of it."""
    with opened_queue(root, **more) as queue:
        queue.folder = queue.incoming
        with door_of(queue) as door:
            yield queue, door
        assert not list(queue.incoming.iterdir())


@pytest.mark.parametrize("content", [IMAGE, LARGE])
def test_what_was_acknowledged_is_there_after_a_restart_and_answered_once(tmp_path, content):
    keyed = LATER | {"Idempotency-Key": "one"}
    with opened(tmp_path) as (_, door):
        status, _, later = asked(door, "POST", "/v1/predict?explain=1", content, keyed)
        assert status == 202
    identity = later["waiting"][0]["id"]
    with opened(tmp_path) as (queue, door):
        assert asked(door, "GET", f"/v1/answers/{identity}")[0] == 202
        work = queue.take()
        assert (work.id, work.content.read_bytes(), work.arrival.explain) == (identity, content, True)
        finish(queue, work)
        assert asked(door, "POST", "/v1/predict?explain=1", content, keyed)[2] == later
        assert asked(door, "POST", "/v1/predict", content, keyed)[0] == 422
        answers = asked(door, "POST", "/v1/predict?explain=1", content, {"Idempotency-Key": "one"})
        assert (answers[0], answers[2]["answers"][0]["id"]) == (200, identity)
        assert asked(door, "GET", f"/v1/answers/{identity}")[2] == answers[2]["answers"][0]
        assert queue.waiting() == 0


def test_a_full_queue_says_later_and_keeps_nothing_of_it(tmp_path):
    with opened(tmp_path, most_waiting=2) as (queue, door):
        form = {"Content-Type": "multipart/form-data; boundary=xyz", "Idempotency-Key": "three"}
        status, headers, _ = asked(door, "POST", "/v1/predict?wait=0", body_of([LARGE, LARGE, LARGE]), form)
        assert (status, "Retry-After" in headers, queue.waiting()) == (503, True, 2)
        for _ in range(2):
            finish(queue, queue.take())
        status, _, later = asked(door, "POST", "/v1/predict?wait=0", body_of([LARGE, LARGE, LARGE]), form)
        assert (status, len(later["waiting"]), queue.waiting()) == (202, 3, 1)


def test_what_is_put_aside_is_said_to_who_waits(tmp_path):
    with opened(tmp_path) as (queue, door):
        asked(door, "POST", "/v1/predict", IMAGE, LATER | {"Idempotency-Key": "bad"})
        queue.set_aside(queue.take(), "it ended the service 3 times")
        status, _, problem = asked(door, "POST", "/v1/predict", IMAGE, {"Idempotency-Key": "bad"})
        # Sent again as another type: the same file under the same key.
        assert status == 422
        assert "ended the service 3 times" in problem["detail"]
        assert asked(door, "GET", f"/v1/answers/{problem['id']}")[0] == 200
