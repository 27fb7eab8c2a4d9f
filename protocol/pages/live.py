"""Telling browsers what has changed, by server-sent events (WHATWG HTML, section 9.2)."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from fedmedclip.protocol.pages.page import Renderings
from fedmedclip.protocol.web.server import Hurry

_LOOK_SECONDS = 1.0
_ALIVE_SECONDS = 15.0


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
