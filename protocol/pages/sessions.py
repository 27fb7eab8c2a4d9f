"""Who has given the token in a browser: a signed cookie, which no other site's page can use."""

import hashlib
import hmac
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from fedmedclip.protocol.allowance import Allowance

SECONDS = 12 * 3600
"""How long a browser is known after the token was given."""
_TRIES, _SECONDS_PER_TRY = 5, 10.0


class Sessions:
    """Knows browsers by a cookie that only this token's owner can have made."""

    def __init__(
        self, token: bytes, name: str, *, secure: bool, clock: Callable[[], float] = time.time
    ) -> None:
        """`name` tells this page's cookie from that of another on the same machine."""
        self._key = hashlib.sha256(b"fedmedclip page session\0" + token).digest()
        self._token = token
        self._name = name
        self._secure = secure
        self._clock = clock
        self._tries = Allowance(_TRIES, _SECONDS_PER_TRY, time.monotonic())

    def knows(self, headers: Headers) -> bool:
        """Whether the request comes from a browser in which the token was given, not too long ago."""
        cookie = cookie_parser(headers.get("cookie", "")).get(self._name, "")
        until, _, mark = cookie.partition(".")
        if not until.isdecimal() or len(until) > 12:
            return False
        return hmac.compare_digest(mark.encode(), self._mark(until).encode()) and self._clock() < int(until)

    def allows_another_try(self) -> bool:
        """Whether the token may be tried once more: nobody is to try them all."""
        return self._tries.take(time.monotonic())

    def is_right(self, token: str) -> bool:
        """Whether a token that was typed is this page's."""
        return hmac.compare_digest(token.strip().encode(), self._token)

    def cookie(self) -> str:
        """Return the header that makes a browser known."""
        until = str(int(self._clock()) + SECONDS)
        return self._header(f"{until}.{self._mark(until)}", SECONDS)

    def farewell(self) -> str:
        """Return the header that makes a browser unknown again."""
        return self._header("", 0)

    def _header(self, value: str, seconds: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{self._name}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _mark(self, until: str) -> str:
        return hmac.new(self._key, until.encode(), hashlib.sha256).hexdigest()
