"""Who may ask: the token, the names by which this machine is called, and pages of other web sites.

A page in a browser can send requests to a door that listens on the browser's own machine: directly, which its
`Origin` tells, or after its name was bound to 127.0.0.1 (DNS rebinding), which its `Host` tells.
"""

import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedmedclip.protocol.faults import in_words
from fedmedclip.protocol.web.problems import RefusedError
from fedmedclip.protocol.web.settings import ListenSettings, is_loopback

log = logging.getLogger("fedmedclip.web")

_LOOKING = ("GET", "HEAD")

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Rules:
    """Who may come in beside those whose `Host` and `Origin` are right.

    Whoever sends `token`, or a cookie that `knows` calls right, may all; without a token everybody may,
    unless `changes_need_token`. Without a token, too, may be asked for `open_paths`, and with `free_looking`
    whatever changes nothing. Where `changes_need_token`, whoever changes something says by `Origin` from
    where it comes, too.
    """

    token: bytes | None
    open_paths: frozenset[str] = frozenset()
    free_looking: bool = False
    changes_need_token: bool = False
    knows: Callable[[Headers], bool] = lambda headers: False
    headers: Mapping[str, str] = field(default_factory=lambda: SECURITY_HEADERS)
    refusal: Callable[[Scope, RefusedError], Response] = lambda scope, refused: refused.response()


class Guard:
    """Lets requests through to the `app` that may come in, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, settings: ListenSettings, rules: Rules) -> None:
        self._app = app
        self._settings = settings
        self._rules = rules
        self._names = {name.lower() for name in settings.server_names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._rules.headers.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._require_welcome(scope)
        except RefusedError as refused:
            await self._rules.refusal(scope, refused)(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            # It was answered as a problem already; what is logged must not quote what was sent.
            log.error("a request failed: %s", in_words(error))

    def _require_welcome(self, scope: Scope) -> None:
        headers, table = Headers(scope=scope), self._settings.TABLE
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise RefusedError(
                421,
                "this door is not called by this name; ask for 127.0.0.1, or add the name to server_names of "
                f"[{table}]",
            )
        origin = headers.get("origin")
        own = f"{scope['scheme']}://{host}"
        allowed = self._settings.allowed_origins
        if origin is not None and origin.lower() != own.lower() and origin not in allowed:
            raise RefusedError(403, f"pages of other web sites may not ask; see allowed_origins of [{table}]")
        looks = scope["method"] in _LOOKING
        if origin is None and _is_of_another_page(headers, looks=looks):
            raise RefusedError(403, "pages of other web sites may not ask, and may link here only")
        if scope["path"] in self._rules.open_paths:
            return
        if looks and self._rules.free_looking:
            return
        if not self._rules.knows(headers):
            self._require_token(headers.getlist("authorization"), looks=looks)
        if not looks and origin is None and self._rules.changes_need_token:
            raise RefusedError(403, "whoever changes something has to say by Origin from which page it does")

    def _is_ours(self, host: str) -> bool:
        if not self._names and not self._settings.on_loopback:
            return True
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name == self._settings.host.lower() or name in self._names:
            return True
        return self._settings.on_loopback and is_loopback(name)

    def _require_token(self, given: list[str], *, looks: bool) -> None:
        right = self._rules.token
        if right is None:
            if not looks and self._rules.changes_need_token:
                raise RefusedError(
                    403, f"this door changes nothing; see allow_changes of [{self._settings.TABLE}]"
                )
            return
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Starlette reads headers as Latin-1.
        is_right = hmac.compare_digest(token.strip().encode("latin-1", "replace"), right)
        if scheme.lower() != "bearer" or not is_right:
            wrong = 'Bearer realm="fedmedclip"' + (', error="invalid_token"' if given else "")
            raise RefusedError(
                401,
                "the token is not that of this door" if given else "send Authorization: Bearer TOKEN",
                {"WWW-Authenticate": wrong},
            )


def _is_of_another_page(headers: Headers, *, looks: bool) -> bool:
    """Whether a browser says (Fetch Metadata) that another page asks, other than by a link to follow."""
    if headers.get("sec-fetch-site", "none") not in ("cross-site", "same-site"):
        return False
    follows = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return not (looks and follows)
