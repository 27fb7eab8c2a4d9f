"""Images by HTTP: answered at once or later, stored before they are acknowledged, never answered twice."""

import gc
import json
import socket
import time

import pytest

from fedmedclip.edge_client.serving.queue import QueueFullError
from fedmedclip.protocol.errors import FullDiskError, StorageError
from tests.edge_client.serving.http.standin import IMAGE, asked, raw, until
from tests.edge_client.serving.http.test_multipart import body_of

PNG = {"Content-Type": "image/png"}
FORM = {"Content-Type": "multipart/form-data; boundary=xyz"}
LARGE = IMAGE + bytes(300_000)


@pytest.mark.parametrize(
    "headers",
    [PNG, {"Content-Type": "application/dicom"}, {"Content-Type": "application/octet-stream; x=y"}, {}],
)
def test_one_image_is_answered(door, queue, headers):
    status, found, answers = asked(door, "POST", "/v1/predict", IMAGE, headers)
    assert status == 200
    assert found["Content-Type"] == "application/json"
    (answer,) = answers["answers"]
    assert answer["results"][0]["label"] == "tumor"
    assert queue.contents[answer["id"]] == IMAGE
    assert asked(door, "GET", f"/v1/answers/{answer['id']}")[2] == answer


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_image_goes_through_a_file(door, queue, chunked):
    body = iter([LARGE[:100_000], LARGE[100_000:]]) if chunked else LARGE
    status, _, answers = asked(door, "POST", "/v1/predict?explain=1", body, PNG)
    assert status == 200
    identity = answers["answers"][0]["id"]
    assert queue.contents[identity] == LARGE
    assert not isinstance(queue.arrivals[identity].content, bytes)
    assert queue.arrivals[identity].explain


def test_several_files_are_answered_in_their_order(door, queue):
    status, _, answers = asked(door, "POST", "/v1/predict", body_of([b"no image", LARGE, IMAGE]), FORM)
    assert status == 200
    found = answers["answers"]
    assert [answer["results"][0]["outcome"] for answer in found] == ["unreadable", "answered", "answered"]
    assert [queue.contents[answer["id"]] for answer in found] == [b"no image", LARGE, IMAGE]
    assert [answer["name"] for answer in found] == ["upload 1", "upload 2", "upload 3"]


def test_one_file_that_cannot_be_read_is_a_problem_with_the_id_of_its_answer(door):
    status, headers, problem = asked(door, "POST", "/v1/predict", b"no image", PNG)
    assert status == 422
    assert headers["Content-Type"] == "application/problem+json"
    assert problem["detail"] == "it is no image that can be read"
    status, _, answer = asked(door, "GET", f"/v1/answers/{problem['id']}")
    assert (status, answer["results"][0]["outcome"]) == (200, "unreadable")


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?wait=0", {}), ("", {"Prefer": "respond-async"}), ("?wait=0.05", {}), ("", {"Prefer": "foo, wait=0"})],
)
def test_an_answer_can_be_fetched_later(door, queue, query, headers):
    queue.seconds = None
    status, found, later = asked(door, "POST", f"/v1/predict{query}", IMAGE, PNG | headers)
    assert status == 202
    (waiting,) = later["waiting"]
    assert found["Location"] == waiting["location"] == f"/v1/answers/{waiting['id']}"
    assert ("Preference-Applied" in found) == ("Prefer" in headers)
    status, found, content = asked(door, "GET", waiting["location"])
    assert (status, content) == (202, waiting)
    assert found["Retry-After"]
    queue.settle(waiting["id"])
    assert asked(door, "GET", waiting["location"])[0] == 200


def test_who_no_longer_waits_leaves_nothing_in_the_log(door, queue, caplog):
    queue.seconds = None
    for _ in range(2):
        assert asked(door, "POST", "/v1/predict?wait=0.05", IMAGE, PNG)[0] == 202
    # Futures say what nobody looked at when they are collected.
    gc.collect()
    assert asked(door, "GET", "/v1/health")[0] == 200
    assert caplog.messages == []


def test_who_waits_is_answered_when_the_answer_is_there(door, queue):
    queue.seconds = 0.2
    began = time.monotonic()
    assert asked(door, "POST", "/v1/predict", IMAGE, PNG)[0] == 200
    assert time.monotonic() - began >= 0.2


def test_unknown_answers_are_not_found(door):
    for name in ("0" * 32, "..%2f..%2fserve.db", "A" * 32, "%ff", "0" * 31 + "%0a"):
        assert asked(door, "GET", f"/v1/answers/{name}")[0] == 404


def test_a_request_sent_again_under_its_key_is_not_answered_again(door, queue):
    headers = PNG | {"Idempotency-Key": "study-7/image-1"}
    first = asked(door, "POST", "/v1/predict", IMAGE, headers)
    again = asked(door, "POST", "/v1/predict", IMAGE, headers)
    assert first[2] == again[2]
    assert len(queue.contents) == 1
    for path, content in (("/v1/predict", IMAGE + b"!"), ("/v1/predict?explain=1", IMAGE)):
        status, _, problem = asked(door, "POST", path, content, headers)
        assert (status, "id" in problem) == (422, False)
    several = FORM | {"Idempotency-Key": "study-7/image-1"}
    assert asked(door, "POST", "/v1/predict", body_of([IMAGE, IMAGE]), several)[0] == 422
    assert len(queue.contents) == 1
    asked(door, "POST", "/v1/predict", IMAGE, PNG)
    asked(door, "POST", "/v1/predict", IMAGE, PNG)
    assert len(queue.contents) == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/v1/predict", b"", PNG, 400),
        ("POST", "/v1/predict", body_of([IMAGE, b""]), FORM, 400),
        ("POST", "/v1/predict", body_of([]), FORM, 400),
        ("POST", "/v1/predict", body_of([IMAGE])[:-8], FORM, 400),
        ("POST", "/v1/predict", IMAGE, {"Content-Type": "multipart/form-data"}, 400),
        ("POST", "/v1/predict", IMAGE, {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("POST", "/v1/predict", IMAGE, {"Content-Type": "nonsense"}, 415),
        ("POST", "/v1/predict", IMAGE, PNG | {"Content-Encoding": "gzip"}, 415),
        ("POST", "/v1/predict", IMAGE, PNG | {"Idempotency-Key": "with a blank"}, 400),
        ("POST", "/v1/predict?explian=1", IMAGE, PNG, 400),
        ("POST", "/v1/predict?wait=nan", IMAGE, PNG, 400),
        ("POST", "/v1/predict?wait=1&wait=2", IMAGE, PNG, 400),
        ("POST", "/v1/predict?explain=2", IMAGE, PNG, 400),
        ("POST", "/v1/predict", body_of([IMAGE] * 4), FORM, 413),
        ("POST", "/v1/predict", bytes(1 << 21), PNG, 413),
        ("POST", "/v1/predict", [bytes(900_000)] * 2, PNG, 413),
        ("GET", "/v1/predict", None, {}, 405),
        ("DELETE", "/v1/answers/" + "0" * 32, None, {}, 405),
        ("GET", "/v1/predict/", None, {}, 404),
    ],
)
def test_what_cannot_be_answered_is_a_problem_in_one_line(door, queue, method, path, body, headers, status):
    found, answered, problem = asked(door, method, path, body, headers)
    assert found == status == problem["status"]
    assert answered["Content-Type"] == "application/problem+json"
    assert "\n" not in problem["detail"]
    assert not queue.contents


def test_a_body_of_unsaid_length_is_asked_for_its_length(door):
    found = raw(door, b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 411 ")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (QueueFullError("too many files wait for an answer; send it again later"), "too many"),
        (FullDiskError("/secret/place: the disk is full"), "disk"),
        (StorageError("/secret/place: broken"), "cannot store"),
        (OSError(5, "Input/output error", "/secret/place"), "cannot store"),
        (OSError(28, "No space left on device", "/secret/place"), "disk"),
    ],
)
def test_what_the_queue_does_not_take_may_come_again(door, queue, error, words):
    queue.refusal = error
    status, headers, problem = asked(door, "POST", "/v1/predict", LARGE, PNG)
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert words in problem["detail"]
    assert "secret" not in json.dumps(problem)


def test_a_client_that_hangs_up_in_the_middle_of_an_upload_leaves_no_file(door, queue):
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
            + bytes(500_000)
        )
        until(lambda: any(queue.folder.iterdir()))
    until(lambda: not any(queue.folder.iterdir()))
    assert not queue.contents


def test_who_hangs_up_while_it_waits_is_answered_all_the_same(door, queue):
    queue.seconds = None
    with socket.create_connection(("127.0.0.1", door.port)) as connection:
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
        connection.sendall(head.encode() + IMAGE)
        until(lambda: queue.waiters)
    (identity,) = queue.contents
    until(lambda: queue.waiters[identity][0].cancelled())
    queue.settle(identity)
    assert asked(door, "GET", f"/v1/answers/{identity}")[0] == 200
