"""The door as a whole: opened, closed, with TLS, and silent about what is none of a log's business."""

import logging
import socket
import ssl
import threading
from http.client import HTTPSConnection
from pathlib import Path

import msgspec
import pytest

from fedmedclip.edge_client.serving.http.door import HttpDoor
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.serving.http.standin import IMAGE, Queue, asked, backing_of, door_of, until
from tests.edge_client.serving.http.test_multipart import body_of
from tests.protocol.link.test_transports import make_certificate

PNG = {"Content-Type": "image/png"}
PLANTED = "DOE^JANE"


def test_a_port_in_use_is_an_error_before_the_service_runs(door, queue):
    second = HttpDoor(HttpSettings(port=door.port), backing_of(queue))
    with pytest.raises(InvalidInputError, match=f"cannot listen on 127.0.0.1:{door.port}"):
        second.start()


def test_a_door_says_where_it_is_and_whether_it_asks_for_a_token(queue):
    settings = HttpSettings(host="::1", port=8081, token="0123456789abcdef")
    assert HttpDoor(settings, backing_of(queue)).described() == "HTTP on [::1]:8081"
    assert HttpDoor(HttpSettings(), backing_of(queue)).described().endswith("8080, without a token")


def test_closing_answers_what_is_in_hand(queue):
    queue.seconds = 0.3
    found = []
    with door_of(queue) as door:
        thread = threading.Thread(target=lambda: found.append(asked(door, "POST", "/v1/predict", IMAGE, PNG)))
        thread.start()
        until(lambda: queue.waiters)
        door.stop()
        door.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", door.port))
    thread.join()
    assert found[0][0] == 200


def test_closing_tells_who_waits_long_where_the_answer_will_be(queue, monkeypatch):
    monkeypatch.setattr(HttpDoor, "grace_seconds", 0.05)
    queue.seconds = None
    found = []
    with door_of(queue) as door:
        thread = threading.Thread(target=lambda: found.append(asked(door, "POST", "/v1/predict", IMAGE, PNG)))
        thread.start()
        until(lambda: queue.waiters)
    thread.join()
    assert found[0][0] == 202
    assert found[0][2]["waiting"][0]["id"] in queue.contents


def test_with_tls_and_a_client_authority_only_its_own_come_in(tmp_path, queue, monkeypatch):
    monkeypatch.setattr("fedmedclip.protocol.web.connection.HEADER_SECONDS", 0.8)
    root = make_certificate(tmp_path, "root", None)
    server, client = make_certificate(tmp_path, "server", root), make_certificate(tmp_path, "client", root)
    Path(server.key_file).chmod(0o600)
    settings = HttpSettings(
        certificate_file=server.certificate_file, key_file=server.key_file,
        client_ca_file=root.certificate_file, token="0123456789abcdef",
    )  # fmt: skip
    nowhere = HttpDoor(msgspec.structs.replace(settings, host="a..b"), backing_of(queue))
    with pytest.raises(InvalidInputError, match="no such address"):
        nowhere.start()
    with door_of(queue, settings) as door:
        assert door.described().startswith("HTTPS on ")

        def ask(certificate):
            context = ssl.create_default_context(cafile=root.certificate_file)
            if certificate is not None:
                context.load_cert_chain(certificate.certificate_file, certificate.key_file)
            connection = HTTPSConnection("127.0.0.1", door.port, timeout=5, context=context)
            connection.request("GET", "/v1/health")
            return connection.getresponse().status

        assert ask(client) == 200
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(None)
        with socket.create_connection(("127.0.0.1", door.port), timeout=5) as silent:
            assert silent.recv(1) == b""


def test_names_that_clients_send_come_out_nowhere(door, queue, caplog):
    caplog.set_level(logging.DEBUG)
    form = {"Content-Type": "multipart/form-data; boundary=xyz", "Cookie": PLANTED, "User-Agent": PLANTED}
    planted = body_of([IMAGE, bytes(200_000)])
    assert PLANTED.encode() in planted
    said = [
        asked(door, "POST", "/v1/predict", planted, form),
        asked(door, "POST", "/v1/predict", b"x", {"Content-Type": PLANTED}),
        asked(door, "POST", f"/v1/predict?{PLANTED}=1", IMAGE, PNG),
        asked(door, "POST", f"/v1/predict?explain={PLANTED}", IMAGE, PNG),
        asked(door, "POST", "/v1/predict", IMAGE, PNG | {"Idempotency-Key": PLANTED}),
        asked(door, "GET", f"/{PLANTED}"),
        asked(door, "GET", f"/v1/answers/{PLANTED}"),
        asked(door, "GET", "/v1/health", headers={"Host": PLANTED}),
        asked(door, "GET", "/v1/health", headers={"Origin": PLANTED}),
        asked(door, "GET", "/metrics"),
    ]
    queue.refusal = RuntimeError(PLANTED)
    failed = asked(door, "POST", "/v1/predict", IMAGE, PNG)
    assert (failed[0], failed[2]["status"]) == (500, 500)
    until(lambda: any("RuntimeError" in record.getMessage() for record in caplog.records))
    everything = [f"{status} {headers.items()} {content}" for status, headers, content in [*said, failed]]
    everything += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    everything += [str(msgspec.structs.asdict(arrival)) for arrival in queue.arrivals.values()]
    assert not [text for text in everything if PLANTED in text or "JANE" in text]


def test_a_service_that_is_not_ready_says_so(tmp_path):
    queue = Queue(tmp_path)
    with door_of(queue, fault=lambda: "there are no heads yet", model=lambda: None) as door:
        status, headers, problem = asked(door, "GET", "/v1/health")
        assert (status, problem["detail"]) == (503, "there are no heads yet")
        assert headers["Retry-After"]
        assert asked(door, "GET", "/v1/model")[0] == 503
        assert b"fedmedclip_ready 0.0" in asked(door, "GET", "/metrics")[2]


def test_numbers_are_there_for_prometheus(door):
    parser = pytest.importorskip("prometheus_client.parser")
    asked(door, "GET", "/v1/answers/" + "0" * 32)
    status, headers, text = asked(door, "GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
    }
    assert samples["fedmedclip_results_total", ("door", "dicom"), ("outcome", "unreadable")] == 1
    assert samples["fedmedclip_answer_seconds_bucket", ("le", "+Inf")] == 4
    assert samples["fedmedclip_deliveries_waiting", ("outlet", "dicom")] == 5
    assert samples["fedmedclip_drift", ("measured", "distance")] == 0.5
    assert samples["fedmedclip_waiting",] == 2
    assert samples["fedmedclip_http_requests_total", ("route", "/v1/answers/{id}"), ("status", "404")] >= 1
    assert asked(door, "GET", "/v1/model")[2]["level"] == 0.9
