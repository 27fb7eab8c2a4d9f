"""Asking a page as browsers and programs do."""

import http.client
from contextlib import contextmanager

from fedmedclip.protocol.pages.server import PageServer
from fedmedclip.protocol.pages.settings import PageSettings


@contextmanager
def served(page, folder, **settings):
    """Give a page that is served on a port of its own."""
    server = PageServer(page, PageSettings(**{"port": 0, **settings}), folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def asked(server, method, path, body=None, headers=None):
    """Return status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def own(server, **more):
    """Return the headers of a form of the page itself."""
    origin = server.address.rstrip("/")
    return {"Origin": origin, "Content-Type": "application/x-www-form-urlencoded", **more}


def logged_in(server, token):
    """Give the token, and return the headers of the browser that did."""
    status, headers, _ = asked(server, "POST", "/login", f"token={token}", own(server))
    assert status == 303
    return own(server, Cookie=headers["Set-Cookie"].partition(";")[0])
