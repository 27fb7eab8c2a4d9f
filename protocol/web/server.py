"""An HTTP server in a thread of its own, beside a process that does something else."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.web import connection
from fedmedclip.protocol.web.settings import ListenSettings, tls_context

log = logging.getLogger("fedmedclip.web")

_KEEP_ALIVE_SECONDS = 30
_LARGEST_HEADER_BYTES = 16 << 10
_BACKLOG = 128
_LAST_SECONDS = 5
_LIBRARY_LOG = logging.getLogger("uvicorn.error")

Hurry = asyncio.Future[None]


class WebServer:
    """Listens from `start` to `stop`. `port` is the real one, also where the settings say 0.

    `application` makes the ASGI application; it is given a future that is done `grace_seconds` after the stop
    was asked for: whoever waits is then to be answered at once. Raises InvalidInputError for certificates
    that cannot be used.
    """

    grace_seconds = 10.0

    def __init__(self, settings: ListenSettings, application: Callable[[Hurry], ASGIApp]) -> None:
        self._settings = settings
        self._application = application
        self._tls = tls_context(settings)
        self._thread: Thread | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hurry: Hurry | None = None
        self._stopping: Hurry | None = None
        self._failure: BaseException | None = None
        self.port = settings.port

    def start(self) -> None:
        """Begin to listen; connections are taken when this returns. InvalidInputError for a bad address."""
        listening = self._bound()
        self.port = listening.getsockname()[1]
        ready = Event()
        self._thread = Thread(
            target=self._run, args=(listening, ready), name=self._settings.TABLE, daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Take no more connections and return when all requests in hand are answered.

        Whoever waits for an answer that takes longer than a moment is told where it will be.
        """
        if self._thread is None or self._loop is None or self._server is None:
            return
        self._server.should_exit = True
        # Closed already where the server failed.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_finish, self._stopping)
            self._loop.call_soon_threadsafe(self._loop.call_later, self.grace_seconds, self._be_quick)
        self._thread.join()
        self._thread = None

    def described(self) -> str:
        """Return one line for the log."""
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        kind = "HTTPS" if self._settings.tls else "HTTP"
        token = "" if self._settings.has_token else ", without a token"
        return f"{kind} on {host}:{self.port}{token}"

    @property
    def stopping(self) -> Hurry:
        """A future that is done as soon as the stop is asked for; the application may wait for it."""
        assert self._stopping is not None
        return self._stopping

    def _be_quick(self) -> None:
        _finish(self._hurry)

    def _bound(self) -> socket.socket:
        host, port, table = self._settings.host, self._settings.port, self._settings.TABLE
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise InvalidInputError(f"[{table}] host {host}: no such address ({error})") from error
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise InvalidInputError(
                f"[{table}] cannot listen on {host}:{port} ({error.strerror}); choose another port"
            ) from error
        return listening

    def _run(self, listening: socket.socket, ready: Event) -> None:
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                runner.run(self._serve(listening, ready))
        except BaseException as error:
            log.exception("the HTTP server failed")
            self._failure = error
        finally:
            listening.close()
            ready.set()

    async def _serve(self, listening: socket.socket, ready: Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._hurry, self._stopping = self._loop.create_future(), self._loop.create_future()

        class Connection(connection.PatientConnection):
            most_connections = self._settings.most_connections

        config = uvicorn.Config(
            self._application(self._hurry),
            http=Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(self.grace_seconds) + _LAST_SECONDS,
            h11_max_incomplete_event_size=_LARGEST_HEADER_BYTES,
        )
        config.load()
        config.ssl = self._tls
        _LIBRARY_LOG.setLevel(logging.ERROR)
        _LIBRARY_LOG.parent = log
        self._server = _Server(config, ready)
        await self._server.serve(sockets=[listening])


def _finish(future: Hurry | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


class _Loop(asyncio.SelectorEventLoop):
    """Gives a TLS handshake as long as a header: a connection counts among the others only after it."""

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """Begin to listen."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = connection.HEADER_SECONDS
        return await super().create_server(*arguments, **options)


class _Server(uvicorn.Server):
    """Tells when it takes connections."""

    def __init__(self, config: uvicorn.Config, ready: Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections."""
        await super().startup(sockets)
        self._ready.set()
