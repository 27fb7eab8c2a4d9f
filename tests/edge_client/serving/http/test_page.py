"""`GET /` of the door: the service in a browser, for whom the door lets in."""

import socket
import time

from fedmedclip.edge_client.serving.http.page import service_page
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from tests.edge_client.serving.http.standin import Queue, backing_of, door_of
from tests.protocol.pages.asking import asked, logged_in
from tests.protocol.pages.test_elements import Read

TOKEN = "0123456789abcdef"


def said_by(backing):
    return " ".join(Read(section.render(False)).text for section in service_page(backing).sections)


def test_it_says_how_many_how_quickly_and_with_what(tmp_path):
    said = said_by(backing_of(Queue(tmp_path)))
    assert "Half are answered within0.1 s" in said
    assert "95 % are answered withinmore than 1 s" in said
    for words in ("Images are answered.", "tumor", "example", "abababababababab", "90%"):
        assert words in said
    said = said_by(backing_of(Queue(tmp_path), fault=lambda: "the heads are <gone>", model=lambda: None))
    assert "Images are not answered: the heads are <gone>" in said
    assert "no heads to answer with yet" in said


def test_a_door_with_a_token_asks_a_browser_for_it(tmp_path):
    with door_of(Queue(tmp_path), HttpSettings(token=TOKEN)) as door:
        assert asked(door, "GET", "/")[0] == 401
        door.address = f"http://127.0.0.1:{door.port}/"
        browser = logged_in(door, TOKEN)
        status, headers, page = asked(door, "GET", "/", headers=browser)
        assert (status, headers["X-Frame-Options"]) == (200, "DENY")
        assert b"Images are answered" in page
        # A browser that may look at the page is no program that may send images.
        assert asked(door, "POST", "/v1/predict", b"\x89PNG", browser)[0] == 401
        assert asked(door, "POST", "/do/anything", b"", browser)[0] == 401


def test_a_browser_that_looks_on_does_not_keep_the_service_from_stopping(tmp_path):
    with door_of(Queue(tmp_path)) as door:
        line = socket.create_connection(("127.0.0.1", door.port), timeout=10)
        line.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"event: marks" in line.recv(4096) + line.recv(4096)
        began = time.monotonic()
        door.stop()
        assert time.monotonic() - began < 5
        line.close()
