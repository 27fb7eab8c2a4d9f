"""Who may ask: the token, the names by which this machine is called, and pages of other web sites.

A page in a browser can send requests to a door that listens on the browser's own machine: directly, which its
`Origin` tells, or after its name was bound to 127.0.0.1 (DNS rebinding), which its `Host` tells.
"""

import hmac
import logging
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedmedclip.edge_client.serving.faults import in_words
from fedmedclip.edge_client.serving.http.problems import RefusedError
from fedmedclip.edge_client.serving.http.settings import HttpSettings, is_loopback

log = logging.getLogger("fedmedclip.serve")

# What says nothing of images, and what a monitor has to reach without a token.
OPEN_PATHS = frozenset({"/openapi.json", "/v1/health"})

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Lets requests through to the `app` that may come in, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, settings: HttpSettings, token: bytes | None) -> None:
        self._app = app
        self._settings = settings
        self._token = token
        self._names = {name.lower() for name in settings.server_names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._require_welcome(scope)
        except RefusedError as refused:
            await refused.response()(scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            # It was answered as a problem already; what is logged must not quote what was sent.
            log.error("a request failed: %s", in_words(error))

    def _require_welcome(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise RefusedError(
                421,
                "this door is not called by this name; ask for 127.0.0.1, or add the name to server_names of "
                "[http]",
            )
        origin = headers.get("origin")
        own = f"{scope['scheme']}://{host}"
        allowed = self._settings.allowed_origins
        if origin is not None and origin.lower() != own.lower() and origin not in allowed:
            raise RefusedError(403, "pages of other web sites may not ask; see allowed_origins of [http]")
        if scope["path"] not in OPEN_PATHS:
            self._require_token(headers.getlist("authorization"))

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

    def _require_token(self, given: list[str]) -> None:
        if self._token is None:
            return
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Starlette reads headers as Latin-1.
        right = hmac.compare_digest(token.strip().encode("latin-1", "replace"), self._token)
        if scheme.lower() != "bearer" or not right:
            wrong = 'Bearer realm="fedmedclip"' + (', error="invalid_token"' if given else "")
            raise RefusedError(
                401,
                "the token is not that of this door" if given else "send Authorization: Bearer TOKEN",
                {"WWW-Authenticate": wrong},
            )
