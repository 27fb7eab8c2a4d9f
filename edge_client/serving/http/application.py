"""The routes, and what stands before them: the guard, the counting, and problems in place of plain errors."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from fedmedclip.edge_client.serving.http.backing import Backing
from fedmedclip.edge_client.serving.http.metrics import MEDIA_TYPE, Metrics
from fedmedclip.edge_client.serving.http.openapi import document
from fedmedclip.edge_client.serving.http.page import is_of_page, with_page
from fedmedclip.edge_client.serving.http.predict import JSON, Predict, pending
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.web.guard import Guard, Rules
from fedmedclip.protocol.web.problems import RETRY_AFTER, RefusedError, problem_response

# What says nothing of images, and what a monitor has to reach without a token.
OPEN_PATHS = frozenset({"/openapi.json", "/v1/health"})

_ID = re.compile(r"[0-9a-f]{32}")
Handler = Callable[[Request], Awaitable[Response]]


def application(
    settings: HttpSettings,
    token: bytes | None,
    backing: Backing,
    hurry: "asyncio.Future[None]",
    stopping: "asyncio.Future[None]",
) -> ASGIApp:
    """Return the ASGI application of the door; `hurry` as `predict.Predict` has it, and `stopping` is done
    when no more is to be shown.
    """
    metrics = Metrics(backing)
    look = Look(backing, metrics)
    routes = [
        _route("/v1/predict", Predict(settings, backing, hurry), "POST"),
        _route("/v1/answers/{identity}", look.answer, "GET"),
        _route("/v1/health", look.health, "GET"),
        _route("/v1/model", look.model, "GET"),
        _route("/metrics", look.metrics, "GET"),
        _route("/openapi.json", look.openapi, "GET"),
    ]
    inner = Starlette(
        routes=routes,
        exception_handlers={RefusedError: _refused, HTTPException: _not_routed, Exception: _failed},
    )
    inner.router.redirect_slashes = False
    app: ASGIApp = Guard(inner, settings, Rules(token, OPEN_PATHS))
    if settings.allowed_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Prefer"],
            expose_headers=["Location", "Retry-After"],
        )
    app = with_page(app, settings, token, backing, stopping)
    return metrics.counting(app, route_of)


def route_of(path: str) -> str:
    """Return the route that a path belongs to, without what a client put into it."""
    if path in ("/v1/predict", "/v1/health", "/v1/model", "/metrics", "/openapi.json"):
        return path
    if is_of_page(path):
        return "page"
    return "/v1/answers/{id}" if path.startswith("/v1/answers/") else "none"


class Look:
    """The routes that only look: at an answer, at the service."""

    def __init__(self, backing: Backing, metrics: Metrics) -> None:
        self._backing = backing
        self._metrics = metrics
        self._document = msgspec.json.encode(document())

    async def answer(self, request: Request) -> Response:
        """An answer, or that it is not there yet."""
        identity = request.path_params["identity"]
        queue = self._backing.queue
        if _ID.fullmatch(identity):
            answer = await asyncio.to_thread(queue.answer, identity)
            if answer is not None:
                return Response(msgspec.json.encode(answer), media_type=JSON)
            if await asyncio.to_thread(queue.state_of, identity) is not None:
                waiting = pending(identity)
                headers = {"Location": waiting.location, "Retry-After": "1"}
                return Response(msgspec.json.encode(waiting), 202, headers, JSON)
        raise RefusedError(404, "there is no answer of this id, or no longer")

    async def health(self, request: Request) -> Response:
        """Whether images are answered."""
        if fault := self._backing.fault():
            raise RefusedError(503, fault, RETRY_AFTER)
        return Response(b'{"status":"ready"}', media_type=JSON)

    async def model(self, request: Request) -> Response:
        """What answers."""
        if (model := self._backing.model()) is None:
            raise RefusedError(503, "there are no heads to answer with yet", RETRY_AFTER)
        return Response(msgspec.json.encode(model), media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """The numbers."""
        text = await asyncio.to_thread(self._metrics.text)
        return Response(text, headers={"Content-Type": MEDIA_TYPE})

    async def openapi(self, request: Request) -> Response:
        """The description of all this."""
        return Response(self._document, media_type=JSON)


def _route(path: str, handler: Handler, method: str) -> Route:
    async def endpoint(request: Request) -> Response:
        return await handler(request)

    return Route(path, endpoint, methods=[method])


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.response()


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: "there is nothing here; GET /openapi.json says what there is",
        405: "this is not a method of this route",
    }
    return problem_response(error.status_code, details.get(error.status_code, error.detail), error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return problem_response(500, "the service failed at this; its log says how")
