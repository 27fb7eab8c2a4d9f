"""Telling browsers what has changed, by server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import msgspec

from fedmedclip.protocol.pages.page import Renderings
from fedmedclip.protocol.web.server import Hurry

_LOOK_SECONDS = 1.0
_ALIVE_SECONDS = 15.0
# A browser that loads the page again, or lost its connection, is back sooner.
_BACK_SECONDS = 4.0


class Audience:
    """Who follows a page at the moment."""

    def __init__(self) -> None:
        self._following = 0
        self._left_at = -_BACK_SECONDS

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one who follows."""
        self._following += 1
        try:
            yield
        finally:
            self._following -= 1
            self._left_at = time.monotonic()

    @property
    def present(self) -> bool:
        """Whether somebody follows, or did a moment ago."""
        return self._following > 0 or time.monotonic() - self._left_at < _BACK_SECONDS


async def changes(renderings: Renderings, may_change: bool, hurry: Hurry) -> AsyncIterator[bytes]:
    """Yield the marks of all sections, at once and whenever one has changed, until the server is stopped."""
    said: dict[str, str] | None = None
    silent = 0.0
    while not hurry.done():
        marks = await asyncio.to_thread(renderings.marks, may_change)
        if marks != said:
            said, silent = marks, 0.0
            yield b"event: marks\ndata: " + msgspec.json.encode(marks) + b"\n\n"
        elif silent >= _ALIVE_SECONDS:
            silent = 0.0
            yield b": alive\n\n"
        silent += _LOOK_SECONDS
        await asyncio.wait([hurry], timeout=_LOOK_SECONDS)
