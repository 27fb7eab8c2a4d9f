"""A browser is known by a cookie that only this page can have made, and not for ever."""

import pytest
from starlette.datastructures import Headers

from fedmedclip.protocol.pages.sessions import SECONDS, Sessions

TOKEN = b"0123456789abcdef-right"


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(clock):
    return Sessions(TOKEN, "page-1", secure=True, clock=clock)


def cookie_of(sessions):
    return sessions.cookie().partition(";")[0]


def knows(sessions, cookie):
    return sessions.knows(Headers({"cookie": cookie}))


def test_a_cookie_is_known_until_it_is_too_old(sessions, clock):
    cookie = cookie_of(sessions)
    assert knows(sessions, cookie)
    assert knows(sessions, f"other=1; {cookie}; more=2")
    clock.now += SECONDS - 1
    assert knows(sessions, cookie)
    clock.now += 1
    assert not knows(sessions, cookie)


@pytest.mark.parametrize("person", ["", "Eva M\u00fcller", "a.b=c; d", "\u2764" * 200])
def test_it_knows_who_said_that_it_is_them(sessions, person):
    cookie = sessions.cookie(person).partition(";")[0]
    assert sessions.person(Headers({"cookie": cookie})) == person[:80]
    assert sessions.person(Headers({"cookie": cookie[:-1]})) is None


def test_no_script_and_no_other_site_gets_at_it(sessions):
    words = sessions.cookie().split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/"} <= set(words)
    assert "Secure" not in Sessions(TOKEN, "page-1", secure=False).cookie().split("; ")
    assert TOKEN.decode() not in sessions.cookie()


def test_a_cookie_of_another_token_page_or_time_is_not_known(sessions, clock):
    name, _, value = cookie_of(sessions).partition("=")
    until, person, mark = value.split(".")
    assert person == ""
    other = Sessions(b"another-token-that-is-right", "page-1", secure=True, clock=clock)
    of_another_port = cookie_of(Sessions(TOKEN, "page-2", secure=True, clock=clock))
    forged = [
        cookie_of(other), of_another_port,
        f"{name}={int(until) + 1}..{mark}", f"{name}={until}..{mark[:-1]}0",
        f"{name}={until}.RXZh.{mark}", f"{name}={until}.{mark}", f"{name}={until}..", f"{name}={until}",
        f"{name}=..{mark}", f"{name}=-1..{mark}", f"{name}=1e9..{mark}", f"{name}=\u00b2\u00b3..{mark}",
        f"{name}={'9' * 40}..{mark}", f"{name}={until}..\u00e9", f"{name}=", "", "=;=;", name,
    ]  # fmt: skip
    assert not [cookie for cookie in forged if knows(sessions, cookie) and cookie != f"{name}={value}"]


def test_a_farewell_is_no_session(sessions):
    assert "Max-Age=0" in sessions.farewell()
    assert not knows(sessions, sessions.farewell().partition(";")[0])


@pytest.mark.parametrize("given", ["0123456789abcdef-right", "  0123456789abcdef-right\n"])
def test_the_token_may_be_typed_with_blanks_around_it(sessions, given):
    assert sessions.is_right(given)


@pytest.mark.parametrize(
    "given", ["", "0123456789abcdef-righ", "0123456789ABCDEF-RIGHT", "\u00e9", "\U0001f600"]
)
def test_any_other_token_is_wrong(sessions, given):
    assert not sessions.is_right(given)
