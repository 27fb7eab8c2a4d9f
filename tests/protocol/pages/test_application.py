"""What a page answers, and whom it refuses."""

import json
import socket

import pytest

from tests.protocol.pages.asking import asked, logged_in, own, served
from tests.protocol.pages.standin import TOKEN, Standin

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def standin():
    return Standin()


@pytest.fixture(scope="module")
def guarded(standin, tmp_path_factory):
    """A page with a token and buttons."""
    with served(standin.page(), tmp_path_factory.mktemp("page"), token=TOKEN, allow_changes=True) as server:
        yield server


@pytest.fixture(scope="module")
def browser(guarded):
    """The headers of a browser in which the token was given."""
    return logged_in(guarded, TOKEN)


@pytest.fixture
def named(standin):
    standin.named = "nobody"
    return lambda: standin.named


PATHS = ["/", "/section/glance", "/events", "/api/number", "/nothing", "/section/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_shown_without_the_token(guarded, path):
    status, _, body = asked(guarded, "GET", path)
    assert status == 401
    assert b"Named" not in body
    status, headers, _ = asked(guarded, "GET", path, headers={"Accept": "text/html,*/*"})
    assert (status, headers["Location"]) == (303, "/login")


def test_with_the_cookie_or_the_header_all_is_shown(guarded, browser):
    for headers in (browser, BEARER):
        assert b"nobody" in asked(guarded, "GET", "/", headers=headers)[2]
        assert asked(guarded, "GET", "/api/number", headers=headers)[2] == b"1"
    found = asked(guarded, "GET", "/section/glance", headers=browser)
    assert found[1]["X-Mark"]
    assert asked(guarded, "GET", "/section/nothing", headers=browser)[0] == 404
    assert asked(guarded, "GET", "/nothing", headers=browser)[0] == 404


def test_behind_a_proxy_that_talks_tls_the_cookie_is_for_tls_alone(standin, tmp_path):
    settings = {
        "token": TOKEN,
        "allow_changes": True,
        "server_names": ["watch.example.org"],
        "allowed_origins": ["https://watch.example.org"],
    }
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    with served(standin.page(), tmp_path, **settings) as server:
        for origin, is_secure in (("https://watch.example.org", True), (own(server)["Origin"], False)):
            headers = {**form, "Origin": origin}
            status, answered, _ = asked(server, "POST", "/login", f"token={TOKEN}", headers=headers)
            assert status == 303
            assert ("Secure" in answered["Set-Cookie"].split("; ")) is is_secure


@pytest.mark.parametrize("path", ["/", "/login", "/page.css", "/page.js", "/nothing", "/do/name"])
def test_every_answer_keeps_others_out_of_the_page(guarded, path):
    headers = asked(guarded, "GET", path)[1]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
    assert "Server" not in headers


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"])
@pytest.mark.parametrize("path", ["/", "/do/name", "/api/number", "/login"])
def test_other_methods_do_nothing(guarded, browser, named, method, path):
    status, _, _ = asked(guarded, method, path, "name=somebody", browser)
    assert status == 405
    assert named() == "nobody"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_changes_nothing(guarded, browser, named, method):
    assert asked(guarded, method, "/do/name?name=somebody", headers=browser)[0] == 405
    assert named() == "nobody"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "localhost.evil:80"])
def test_a_name_that_was_bound_to_this_machine_is_not_answered(guarded, browser, named, host):
    for method, path in (("GET", "/"), ("GET", "/login"), ("POST", "/do/name")):
        status, _, body = asked(guarded, method, path, "name=somebody", {**browser, "Host": host})
        assert status == 421
        assert b"Named" not in body
    assert named() == "nobody"


@pytest.mark.parametrize(
    "origin",
    [None, "null", "https://evil.example", "http://127.0.0.1", "http://localhost:1", "http://127.0.0.1:1"],
)
def test_no_other_page_changes_anything_in_a_browser_that_is_logged_in(guarded, browser, named, origin):
    headers = {name: value for name, value in browser.items() if name != "Origin"}
    if origin is not None:
        headers["Origin"] = origin
    for path in ("/do/name", "/logout", "/login"):
        assert asked(guarded, "POST", path, f"name=somebody&token={TOKEN}", headers)[0] == 403
    assert named() == "nobody"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_may_link_here_but_not_load_anything(guarded, browser, site):
    headers = {"Cookie": browser["Cookie"], "Sec-Fetch-Site": site}
    loads = {**headers, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    frames = {**headers, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    for path in ("/", "/api/number", "/page.css", "/login"):
        assert asked(guarded, "GET", path, headers=loads)[0] == 403
        assert asked(guarded, "GET", path, headers=frames)[0] == 403
    links = {**headers, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert asked(guarded, "GET", "/", headers=links)[0] == 200
    assert asked(guarded, "POST", "/do/name", "name=somebody", links)[0] == 403


def test_a_button_does_what_it_says_once_and_says_so(guarded, browser, named):
    status, headers, body = asked(guarded, "POST", "/do/name", "name=a+%26+%3Cb%3E", browser)
    assert (status, named()) == (200, "a & <b>")
    assert headers["Content-Type"].startswith("text/html")
    assert b"named a &amp; &lt;b&gt;" in body
    as_json = {**browser, "Accept": "application/json"}
    status, _, body = asked(guarded, "POST", "/do/name", "name=c", as_json)
    assert json.loads(body) == {"said": "named c"}
    status, _, body = asked(guarded, "POST", "/do/name", "name=", as_json)
    assert (status, json.loads(body)) == (409, {"said": "no name was given"})
    assert asked(guarded, "POST", "/do/nothing", "", browser)[0] == 404
    program = {**BEARER, "Origin": browser["Origin"]}
    assert asked(guarded, "POST", "/do/name", "name=program", program)[0] == 200
    assert asked(guarded, "POST", "/do/name", "name=stranger", BEARER)[0] == 403
    assert named() == "program"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\xff\xfe", 400), (b"name=%ff", 400), (b"name=%C3", 400), (b"&".join([b"a=1"] * 21), 400),
        (b"name=" + b"x" * 9000, 413), (b"{}", 409), (b"name", 409), (b"=x", 409), (b"", 409),
        (b"name=%00%1b%E2%80%AE", 200), (b"name=a;name=b", 200), (b"name=a&name=b", 200),
    ],
)  # fmt: skip
def test_odd_forms_are_refused_or_taken_as_text(guarded, browser, standin, body, status):
    assert asked(guarded, "POST", "/do/name", body, browser)[0] == status
    page = asked(guarded, "GET", "/", headers=browser)
    assert page[0] == 200
    assert not [byte for byte in (0, 0x1B) if byte in page[2]]
    standin.named = "nobody"


def test_the_token_is_not_found_by_trying(standin, tmp_path):
    with served(standin.page(), tmp_path, token=TOKEN, allow_changes=True) as server:
        found = [asked(server, "POST", "/login", f"token=wrong-{n}", own(server)) for n in range(7)]
        assert [status for status, *_ in found] == [401] * 5 + [429] * 2
        assert not [headers for _, headers, _ in found if "Set-Cookie" in headers]
        # Nor does the right one help whoever hurries; who is in stays in.
        assert asked(server, "POST", "/login", f"token={TOKEN}", own(server))[0] == 429
        assert asked(server, "GET", "/", headers=BEARER)[0] == 200


def test_whoever_logs_out_is_asked_again(guarded):
    browser = logged_in(guarded, TOKEN)
    status, headers, _ = asked(guarded, "POST", "/logout", "", browser)
    assert status == 303
    assert "Max-Age=0" in headers["Set-Cookie"]


def test_an_open_page_of_this_machine_shows_all_and_changes_nothing(standin, tmp_path):
    with served(standin.page(), tmp_path) as server:
        assert b"Named" in asked(server, "GET", "/")[2]
        assert asked(server, "GET", "/login")[0] == 404
        for headers in (own(server), BEARER, {}):
            assert asked(server, "POST", "/do/name", "name=somebody", headers)[0] == 403
        assert standin.named == "nobody"


def test_a_page_without_leave_to_change_has_no_buttons(standin, tmp_path):
    with served(standin.page(), tmp_path, token=TOKEN) as server:
        browser = logged_in(server, TOKEN)
        assert b"Name somebody" not in asked(server, "GET", "/", headers=browser)[2]
        assert asked(server, "POST", "/do/name", "name=somebody", browser)[0] == 403


def test_what_changes_is_told_at_once_and_the_server_stops_all_the_same(standin, tmp_path):
    with (
        served(standin.page(), tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.port)) as line,
    ):
        line.settimeout(10)
        line.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        told = line.makefile("rb")
        first = _marks(told)
        standin.number += 1
        second = _marks(told)
        assert set(first) == {"glance", "charts", "sites"}
        assert [name for name in first if first[name] != second[name]] == ["glance"]
        assert second["glance"] == asked(server, "GET", "/section/glance")[1]["X-Mark"]
        server.stop()
        standin.number = 1


def _marks(told):
    for line in told:
        if line.startswith(b"data: "):
            return json.loads(line[6:])
    raise AssertionError("the connection ended")
