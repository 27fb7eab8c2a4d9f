"""Who may ask: with the token, by this machine's own names, and no page of another web site."""

import socket

import pytest

from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.web.guard import SECURITY_HEADERS
from tests.edge_client.serving.http.standin import IMAGE, Queue, asked, door_of

TOKEN = "0123456789abcdef"
PATHS = [
    ("POST", "/v1/predict"),
    ("GET", "/v1/model"),
    ("GET", "/metrics"),
    ("GET", "/v1/answers/" + "0" * 32),
]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A door with a token, one other name, and one other web site that may ask."""
    settings = HttpSettings(
        token=TOKEN, server_names=["clinic.example.org"], allowed_origins=["https://viewer.example.org"]
    )
    with door_of(Queue(tmp_path_factory.mktemp("incoming")), settings) as door:
        yield door


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "given", [None, "Bearer wrong-wrong-wrong", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer \xe9" + TOKEN]
)
def test_without_the_token_nothing_is_said(guarded, method, path, given):
    headers = {} if given is None else {"Authorization": given}
    status, found, problem = asked(guarded, method, path, IMAGE if method == "POST" else None, headers)
    assert status == problem["status"] == 401
    assert found["WWW-Authenticate"].startswith("Bearer ")
    assert TOKEN not in problem["detail"]


def test_with_the_token_all_is_there(guarded):
    headers = {"Authorization": f"bearer {TOKEN}"}
    found = [
        asked(guarded, method, path, IMAGE if method == "POST" else None, headers) for method, path in PATHS
    ]
    assert [status for status, *_ in found] == [200, 200, 200, 404]


@pytest.mark.parametrize("path", ["/v1/health", "/openapi.json"])
def test_health_and_description_need_no_token(guarded, path):
    assert asked(guarded, "GET", path)[0] == 200


@pytest.mark.parametrize("path", ["/v1/health", "/v1/predict", "/nothing", "/metrics"])
def test_every_answer_has_the_security_headers(guarded, path):
    _, headers, _ = asked(guarded, "GET", path)
    assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    assert "Server" not in headers
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8080", 200),
        ("Clinic.example.org", 200),
        ("evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("[::1", 421),
        ("user@evil.example.org", 421),
        ("", 421),
    ],
)
def test_this_machine_is_called_by_its_own_names_only(guarded, host, status):
    assert asked(guarded, "GET", "/v1/health", headers={"Host": host})[0] == status


@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://localhost:1", ""])
def test_pages_of_other_web_sites_may_not_ask(guarded, origin):
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": origin}
    assert asked(guarded, "POST", "/v1/predict", IMAGE, headers)[0] == 403


def test_pages_of_its_own_and_of_named_web_sites_may(guarded):
    headers = {"Authorization": f"Bearer {TOKEN}"}
    own = headers | {"Origin": f"http://127.0.0.1:{guarded.port}"}
    assert asked(guarded, "POST", "/v1/predict", IMAGE, own)[0] == 200
    other = {"Origin": "https://viewer.example.org"}
    status, found, _ = asked(guarded, "POST", "/v1/predict", IMAGE, headers | other)
    assert (status, found["Access-Control-Allow-Origin"]) == (200, "https://viewer.example.org")
    preflight = other | {
        "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"
    }  # fmt: skip
    assert asked(guarded, "OPTIONS", "/v1/predict", headers=preflight)[0] == 200


def test_a_refused_upload_is_not_read_for_ever(guarded, monkeypatch):
    monkeypatch.setattr("fedmedclip.protocol.web.connection.LINGER_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        while connection.recv(65536):
            pass
