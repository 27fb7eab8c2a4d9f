"""The routes of a page: itself, its sections, what has changed, what is done, what programs read."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.faults import in_words
from fedmedclip.protocol.pages.elements import element
from fedmedclip.protocol.pages.frame import (
    REFERRER,
    SCRIPT,
    SECURITY,
    STYLE,
    login_page,
    small_page,
    whole_page,
)
from fedmedclip.protocol.pages.live import Audience, changes
from fedmedclip.protocol.pages.page import Page, Renderings
from fedmedclip.protocol.pages.sessions import Sessions
from fedmedclip.protocol.pages.settings import PageSettings
from fedmedclip.protocol.visible import visible
from fedmedclip.protocol.web.guard import SECURITY_HEADERS, Guard, Rules
from fedmedclip.protocol.web.problems import RefusedError, problem_response
from fedmedclip.protocol.web.server import Hurry

log = logging.getLogger("fedmedclip.page")

_LARGEST_FORM = 8192
_OPEN = frozenset({"/page.css", "/page.js", "/login"})
_CACHED = {"Cache-Control": "no-cache"}


def page_application(
    page: Page, settings: PageSettings, token: bytes | None, hurry: Hurry, audience: Audience | None = None
) -> ASGIApp:
    """Return the ASGI application of a page behind its guard. Without a token nothing can be changed.

    Who follows is counted in `audience`.
    """
    sessions = None
    if token is not None:
        sessions = Sessions(token, f"fedmedclip-{settings.port}", secure=settings.tls)
    routes = _Routes(page, settings, sessions, token, hurry, audience or Audience())
    inner = Starlette(
        routes=[
            Route("/", routes.page, methods=["GET"]),
            Route("/section/{name}", routes.section, methods=["GET"]),
            Route("/events", routes.events, methods=["GET"]),
            Route("/login", routes.login, methods=["GET", "POST"]),
            Route("/logout", routes.logout, methods=["POST"]),
            Route("/do/{action}", routes.act, methods=["POST"]),
            Route("/page.css", _static(STYLE, "text/css"), methods=["GET"]),
            Route("/page.js", _static(SCRIPT, "text/javascript"), methods=["GET"]),
            *(Route(path, routes.document, methods=["GET"]) for path in page.documents),
        ],
        exception_handlers={RefusedError: _refused, HTTPException: _not_routed, Exception: _failed},
    )
    headers = {"Content-Security-Policy": SECURITY, "X-Frame-Options": "DENY", "Referrer-Policy": REFERRER}
    rules = Rules(
        token,
        _OPEN,
        free_looking=settings.on_loopback and not settings.has_token,
        changes_need_token=True,
        knows=sessions.knows if sessions else lambda headers: False,
        headers=SECURITY_HEADERS | headers,
        refusal=_refusal,
    )
    return Guard(inner, settings, rules)


class _Routes:
    def __init__(
        self,
        page: Page,
        settings: PageSettings,
        sessions: Sessions | None,
        token: bytes | None,
        hurry: Hurry,
        audience: Audience,
    ) -> None:
        self._page = page
        self._changes = settings.allow_changes and token is not None
        self._sessions = sessions
        self._hurry = hurry
        self._audience = audience
        self._renderings = Renderings(page)
        self._sections = {section.name: section for section in page.sections}

    async def page(self, request: Request) -> Response:
        """The whole page."""
        may_change = self._may_change(request)

        def made() -> bytes:
            rendered = {
                name: self._renderings.of(section, may_change) for name, section in self._sections.items()
            }
            return whole_page(self._page, rendered, may_change, self._changes)

        return HTMLResponse(await asyncio.to_thread(made))

    async def section(self, request: Request) -> Response:
        """The inside of one section, with its mark."""
        section = self._sections.get(request.path_params["name"])
        if section is None:
            raise RefusedError(404, "this page has no such section")
        made = await asyncio.to_thread(self._renderings.of, section, self._may_change(request))
        return HTMLResponse(made.html, headers={"X-Mark": made.mark})

    async def events(self, request: Request) -> Response:
        """What has changed, as it changes."""
        may_change = self._may_change(request)

        async def stream() -> AsyncIterator[bytes]:
            with self._audience.one_more():
                async for change in changes(self._renderings, may_change, self._hurry):
                    yield change

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def login(self, request: Request) -> Response:
        """Take the token of whoever wants to change something, or to see a page that is not for everybody."""
        if self._sessions is None:
            raise RefusedError(404, "this page has no token")
        if request.method == "GET":
            return HTMLResponse(login_page())
        _require_own_page(request)
        fields = await _form(request)
        given, person = fields.get("token", ""), visible(fields.get("name", "").strip())
        if not self._sessions.allows_another_try():
            raise RefusedError(429, "too many tries; come again in a minute", {"Retry-After": "60"})
        if not self._sessions.is_right(given):
            log.warning("somebody gave this page a wrong token")
            return HTMLResponse(login_page("That is not the token of this page."), 401)
        over_tls = request.headers["origin"].startswith("https://")
        return RedirectResponse("/", 303, {"Set-Cookie": self._sessions.cookie(person, over_tls=over_tls)})

    async def logout(self, request: Request) -> Response:
        """Forget this browser."""
        if self._sessions is None:
            raise RefusedError(404, "this page has no token")
        return RedirectResponse("/", 303, {"Set-Cookie": self._sessions.farewell()})

    async def act(self, request: Request) -> Response:
        """Do what a button says, and say what came of it: as JSON for the page's script, else as a page."""
        if not self._changes:
            raise RefusedError(403, "this page changes nothing; see allow_changes of [page]")
        action = self._page.actions.get(request.path_params["action"])
        if action is None:
            raise RefusedError(404, "this page has no such button")
        fields = await _form(request)
        status = 200
        try:
            said = await asyncio.to_thread(action, fields, self._by(request))
        except FedMedClipError as error:
            said, status = str(error), 409
        if "application/json" in request.headers.get("accept", ""):
            return Response(msgspec.json.encode({"said": said}), status, media_type="application/json")
        back = element("p", element("a", "Back to the page", href="/"))
        title = "Done" if status == 200 else "Not done"
        return HTMLResponse(small_page(title, element("p", visible(said)), back), status)

    async def document(self, request: Request) -> Response:
        """What programs read."""
        document = self._page.documents[request.url.path]
        return Response(await asyncio.to_thread(document.make), headers={"Content-Type": document.media_type})

    def _by(self, request: Request) -> str:
        """Return who does something, as it is put on record."""
        person = self._sessions.person(request.headers) if self._sessions else None
        return f"{person} (page)" if person else "page"

    def _may_change(self, request: Request) -> bool:
        return self._changes and self._sessions is not None and self._sessions.knows(request.headers)


def _static(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return Response(content, headers=_CACHED, media_type=media_type)

    return endpoint


async def _form(request: Request) -> dict[str, str]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_FORM:
            raise RefusedError(413, "this is no form of this page")
    try:
        return dict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
        )
    except ValueError as error:
        raise RefusedError(400, "this is no form of this page") from error


def _require_own_page(request: Request) -> None:
    """The guard has compared an `Origin` that was sent; whoever logs in has to send one."""
    if "origin" not in request.headers:
        raise RefusedError(403, "a browser that logs in has to say from which page it does")


def _refusal(scope: Scope, refused: RefusedError) -> Response:
    """Return a problem, or for a person the page that asks for the token."""
    wants_page = (
        any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
        and scope["method"] == "GET"
    )
    if refused.status == 401 and wants_page:
        return RedirectResponse("/login", 303)
    return refused.response()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.response()


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, "there is nothing here", error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    log.error("the page failed: %s", in_words(error))
    return problem_response(500, "the page failed at this; the log says how")
