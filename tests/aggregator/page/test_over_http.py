"""Who may do what on the page, asked over HTTP: nothing is changed without a token and from elsewhere."""

import json
import socket
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from fedmedclip.aggregator.commands import read_command
from fedmedclip.aggregator.page.beside import page_beside
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.pages import live
from fedmedclip.protocol.pages.settings import ADDRESS_FILE, PageSettings
from tests.aggregator.page.conftest import TOKEN, Watched

FORM = "application/x-www-form-urlencoded"


def origin(watched):
    return watched.server.address.rstrip("/")


def logged_in(watched):
    """Return the cookie of a browser in which the token was given, once: tries are counted."""
    if watched.cookie:
        return watched.cookie
    headers = {"Origin": origin(watched), "Content-Type": FORM}
    status, answered, _ = watched.ask("/login", "POST", f"token={TOKEN}", **headers)
    assert (status, answered["location"]) == (303, "/")
    watched.cookie = answered["set-cookie"]
    return watched.cookie


def press(watched, action, body="", **headers):
    usual = {"Cookie": logged_in(watched).partition(";")[0], "Origin": origin(watched), "Content-Type": FORM}
    return watched.ask(f"/do/{action}", "POST", body, **{**usual, "Accept": "application/json", **headers})


def carried_out(watched, action, body):
    """Press a button while the loop goes on; return status and answer."""
    said = []
    pressing = threading.Thread(target=lambda: said.append(press(watched, action, body)))
    pressing.start()
    watched.carry_out_commands()
    pressing.join(10.0)
    status, _, answer = said[0]
    return status, json.loads(answer)


def open_commands(watched):
    return watched.federation.store.open_commands()


def test_a_button_is_a_command_on_record_and_says_what_came_of_it(fresh):
    status, body = carried_out(fresh, "more-rounds", "number=3")
    assert (status, body) == (200, {"said": "the run has 8 rounds now"})
    assert fresh.coordinator.plan.rounds == 8
    assert "command: the run has 8 rounds now" in fresh.section("events")


def test_who_gave_a_command_is_on_record_if_they_said_who_they_are(fresh):
    headers = {"Origin": origin(fresh), "Content-Type": FORM}
    _, answered, _ = fresh.ask("/login", "POST", f"token={TOKEN}&name=Eva+M%C3%BCller%0A", **headers)
    fresh.cookie = answered["set-cookie"]
    assert carried_out(fresh, "pause", "")[0] == 200
    fresh.cookie = None
    assert carried_out(fresh, "resume", "")[0] == 200
    given = [read_command(encoded).by for _, encoded, _, _ in fresh.federation.store.commands_done(0.0)]
    assert given == ["page", "Eva M\u00fcller (page)"]  # The newest first.


def test_what_cannot_be_done_is_said(fresh):
    status, body = carried_out(fresh, "roll-back", "version=77")
    assert status == 409
    assert "77" in body["said"]


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("more-rounds", "number=0"),
        ("more-rounds", "number=x"),
        ("more-rounds", ""),
        ("leave-out", "number=1"),
    ],
)
def test_a_form_that_makes_no_command_is_refused_at_once(watched, action, body):
    status, _, answer = press(watched, action, body)
    assert status == 409
    assert json.loads(answer)["said"].startswith("this cannot be done with these values: ")
    assert open_commands(watched) == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Cookie": ""}, 401),
        ({"Cookie": "fedmedclip-0=99999999999.00"}, 401),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "elsewhere.example"}, 421),
    ],
)
def test_nothing_is_changed_without_the_token_and_from_elsewhere(watched, headers, expected):
    status, _, _ = press(watched, "pause", **headers)
    assert status == expected
    assert open_commands(watched) == []


def test_a_browser_says_from_which_page_it_changes_something(watched):
    cookie = logged_in(watched).partition(";")[0]
    status, _, _ = watched.ask("/do/pause", "POST", "", Cookie=cookie, **{"Content-Type": FORM})
    assert status == 403
    assert open_commands(watched) == []


def test_nothing_is_changed_by_other_methods_or_by_what_is_no_form(watched):
    cookie = logged_in(watched).partition(";")[0]
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        status, _, _ = watched.ask("/do/pause", method, Cookie=cookie, Origin=origin(watched))
        assert status in (400, 401, 403, 404, 405)
    assert press(watched, "nonsense")[0] == 404
    assert press(watched, "pause", "x" * 10_000)[0] == 413
    assert press(watched, "pause", "&".join(f"a{n}=1" for n in range(50)))[0] == 400
    assert press(watched, "pause", "a=%ff%fe")[0] == 400
    assert open_commands(watched) == []


def test_the_cookie_is_for_this_page_alone_and_no_script(watched):
    cookie = logged_in(watched)
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie


def test_whoever_has_no_token_sees_nothing_where_there_is_one(watched):
    for path in ("/", "/section/glance", "/events", "/api/status", "/api/happenings", "/metrics"):
        status, _, body = watched.ask(path)
        assert status == 401
        assert b"site-0" not in body
        assert watched.ask(path, Authorization=f"Bearer {TOKEN[:-1]}")[0] == 401


def test_a_page_that_changes_nothing_has_no_buttons_behind_it(tmp_path):
    watched = Watched(tmp_path, token=TOKEN, allow_changes=False)
    watched.play(1)
    watched.server.start()
    try:
        assert press(watched, "pause")[0] == 403
        assert open_commands(watched) == []
    finally:
        watched.server.stop()


def test_programs_read_the_status_and_what_happened(watched):
    status, headers, body = watched.ask("/api/status", Authorization=f"Bearer {TOKEN}")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body)["version"] == 2
    _, _, body = watched.ask("/api/happenings", Authorization=f"Bearer {TOKEN}")
    assert json.loads(body)[-1]["kind"] == "made"
    _, headers, body = watched.ask("/metrics", Authorization=f"Bearer {TOKEN}")
    assert headers["content-type"].split(";")[0] == "text/plain"
    assert b"fedmedclip_aggregator_version 2.0" in body
    status, _, body = watched.ask("/", Authorization=f"Bearer {TOKEN}")
    assert status == 200
    assert b"Federation trial" in body
    assert watched.ask("/", "HEAD", Authorization=f"Bearer {TOKEN}")[2] == b""


def test_those_who_follow_are_let_go_at_once_when_it_ends(fresh):
    following = [HTTPConnection("127.0.0.1", fresh.server.port, timeout=20.0) for _ in range(20)]
    for connection in following:
        connection.request("GET", "/events", headers={"Authorization": f"Bearer {TOKEN}"})
    answers = [connection.getresponse() for connection in following]
    for answer in answers:
        assert answer.readline() == b"event: marks\n"
    began = time.monotonic()
    fresh.server.stop()
    assert time.monotonic() - began < 3.0
    for answer in answers:
        answer.read()


def test_a_button_that_waits_does_not_keep_it_from_ending(fresh):
    said = []
    pressing = threading.Thread(target=lambda: said.append(press(fresh, "pause")))
    pressing.start()
    while not open_commands(fresh):
        time.sleep(0.05)
    began = time.monotonic()
    fresh.closing.set()
    fresh.server.stop()
    pressing.join(5.0)
    assert time.monotonic() - began < 3.0
    assert json.loads(said[0][2])["said"] == "the aggregator stops; it will be done when it starts again"


def test_it_stays_as_long_as_somebody_looks_but_not_for_ever(fresh, monkeypatch):
    monkeypatch.setattr(live, "_BACK_SECONDS", 0.3)
    store, coordinator = fresh.federation.store, fresh.coordinator
    with page_beside(PageSettings(port=0), "f", store) as shown:
        shown.show(coordinator, 0.0)
        address = urlsplit((store.path.parent / ADDRESS_FILE).read_text().strip())
        began = time.monotonic()
        shown.show_last(coordinator, 30.0)
        assert time.monotonic() - began < 20.0
        following = HTTPConnection("127.0.0.1", address.port, timeout=20.0)
        following.request("GET", "/events")
        answer = following.getresponse()
        assert answer.readline() == b"event: marks\n"
        began = time.monotonic()
        shown.show_last(coordinator, 0.5)
        assert 0.5 <= time.monotonic() - began < 20.0
        threading.Timer(0.5, lambda: (answer.close(), following.close())).start()
        shown.show_last(coordinator, 30.0)
        assert 0.8 <= time.monotonic() - began < 20.0


def test_a_taken_port_is_a_warning_and_the_run_goes_on(store, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = PageSettings(port=taken.getsockname()[1])
        with page_beside(settings, "f", store) as shown:
            shown.show(None, 0.0)
    assert "there is no page: [page] cannot listen on 127.0.0.1" in caplog.text


def test_a_missing_library_is_a_warning_with_what_to_install(store, caplog, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fedmedclip.protocol.pages.server", None)
    with page_beside(PageSettings(port=0), "f", store) as shown:
        shown.show(None, 0.0)
    assert "pip install 'fedmedclip-edge[pages]'" in caplog.text


def test_the_address_is_in_the_state_folder_while_there_is_a_page(store):
    address_file = store.path.parent / ADDRESS_FILE
    with page_beside(PageSettings(port=0), "f", store):
        assert address_file.read_text().startswith("http://127.0.0.1:")
    assert not address_file.exists()


def test_a_page_for_other_machines_needs_tls_and_a_token():
    with pytest.raises(InvalidInputError, match=r"needs TLS .* and a token"):
        PageSettings(host="0.0.0.0")
