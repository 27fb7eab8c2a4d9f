"""Who has given the token in a browser: a signed cookie, which no other site's page can use."""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from fedmedclip.protocol.allowance import Allowance

SECONDS = 12 * 3600
"""How long a browser is known after the token was given."""
LONGEST_NAME = 80
"""Characters of the name that somebody may say when they log in."""
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
        return self.person(headers) is not None

    def person(self, headers: Headers) -> str | None:
        """Return the name that was said with the token, which may be empty; None as `knows` is False."""
        cookie = cookie_parser(headers.get("cookie", "")).get(self._name, "")
        signed, _, mark = cookie.rpartition(".")
        until, _, person = signed.partition(".")
        if not until.isdecimal() or len(until) > 12:
            return None
        if not hmac.compare_digest(mark.encode(), self._mark(signed).encode()) or self._clock() >= int(until):
            return None
        return base64.urlsafe_b64decode(person).decode()

    def allows_another_try(self) -> bool:
        """Whether the token may be tried once more: nobody is to try them all."""
        return self._tries.take(time.monotonic())

    def is_right(self, token: str) -> bool:
        """Whether a token that was typed is this page's."""
        return hmac.compare_digest(token.strip().encode(), self._token)

    def cookie(self, person: str = "", *, over_tls: bool = False) -> str:
        """Return the header that makes a browser known, as that of a person who has said their name.

        `over_tls` says that the browser talks TLS, if only to a proxy.
        """
        name = base64.urlsafe_b64encode(person[:LONGEST_NAME].encode()).decode()
        signed = f"{int(self._clock()) + SECONDS}.{name}"
        return self._header(f"{signed}.{self._mark(signed)}", SECONDS, over_tls)

    def farewell(self) -> str:
        """Return the header that makes a browser unknown again."""
        return self._header("", 0)

    def _header(self, value: str, seconds: int, over_tls: bool = False) -> str:
        secure = "; Secure" if self._secure or over_tls else ""
        return f"{self._name}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _mark(self, signed: str) -> str:
        return hmac.new(self._key, signed.encode(), hashlib.sha256).hexdigest()
