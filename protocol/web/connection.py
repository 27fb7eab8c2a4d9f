"""One connection, as uvicorn has it, with an end to the patience: for headers, for what comes too late."""

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedmedclip.protocol.web.problems import MEDIA_TYPE, RETRY_AFTER, problem_bytes

# What uvicorn says beside errors is what strangers can make it say at will.
log = logging.getLogger("fedmedclip.web")
log.setLevel(logging.ERROR)

HEADER_SECONDS = 10.0
"""In which a request's header has to be whole, from the connection or the header's first byte on."""
LINGER_SECONDS = 5.0
"""For which a body is read away that nobody wants any more, so that the client reads why before the end."""
UNREAD_SECONDS = 30.0
"""For which an answer may wait for its client to read on."""


class PatientConnection(H11Protocol):
    """Closes connections whose header does not come, whose answer is not read, whose body goes on after it.

    Those beyond `most_connections` are told so and closed at once: each takes memory and a descriptor.
    """

    most_connections = 100

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection that was made."""
        super().connection_made(transport)
        # Whatever handlers the process has: paths and queries are the clients' words.
        self.access_log = False
        self.logger = log
        self._end: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        if len(self.connections) > self.most_connections:
            self._say(503, "too many connections; come again", RETRY_AFTER)
        else:
            self._end_after(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a connection that is lost."""
        self._end_after(None)
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._is_lingering():
            return
        if self.conn.their_state is not h11.IDLE:
            self._end_after(None)
        elif self._end is None:
            self._end_after(HEADER_SECONDS)

    def on_response_complete(self) -> None:
        """Go on after an answer."""
        super().on_response_complete()
        if self._is_lingering():
            self._end_after(LINGER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self._say(400, "this is no HTTP request that can be read", {})
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answer, but not for ever."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on with a client that reads."""
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that is not used, whether or not the client has read all."""
        super().timeout_keep_alive_handler()
        self._unread = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _is_lingering(self) -> bool:
        over = self.cycle is not None and self.cycle.response_complete
        return over and self.conn.their_state is h11.SEND_BODY

    def _end_after(self, seconds: float | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = None if seconds is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._end = None
        if not self.transport.is_closing():
            self.transport.close()

    def _say(self, status: int, detail: str, more: dict[str, str]) -> None:
        """Send a problem without a request, and close."""
        body = problem_bytes(status, detail)
        headers: Any = {
            "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close", **more
        }  # fmt: skip
        lines = [f"HTTP/1.1 {status} ", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.transport.write("\r\n".join(lines).encode("ascii") + body)
        self.transport.close()
