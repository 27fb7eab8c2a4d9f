"""`POST /v1/predict`: files are taken in, and answered, at once or later."""

import asyncio
import errno
import hashlib
import logging
import secrets
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import Accepted, Arrival
from fedmedclip.edge_client.serving.http.backing import Backing
from fedmedclip.edge_client.serving.http.request import Asked, read_request
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.edge_client.serving.http.uploads import ClientGoneError, Upload, received
from fedmedclip.edge_client.serving.queue import QueueFullError
from fedmedclip.protocol.errors import FullDiskError, StorageError
from fedmedclip.protocol.web.problems import RETRY_AFTER, RefusedError

log = logging.getLogger("fedmedclip.serve")

# What the context of an arrival calls the request that it came with.
REQUEST = "request"
JSON = "application/json"


class Answers(msgspec.Struct, frozen=True):
    """The answers to the files of a request, in their order."""

    answers: list[Answer]


class Pending(msgspec.Struct, frozen=True):
    """A file that was taken in and has no answer yet; that will be at `location`."""

    id: str
    location: str


class PendingAnswers(msgspec.Struct, frozen=True):
    """The files of a request, in their order, where at least one has no answer yet."""

    waiting: list[Pending]


def pending(identity: str) -> Pending:
    """Return where the answer to a file will be."""
    return Pending(identity, f"/v1/answers/{identity}")


class Predict:
    """The route. `hurry` is done when the service ends: who waits is then told where the answer will be."""

    def __init__(self, settings: HttpSettings, backing: Backing, hurry: "asyncio.Future[None]") -> None:
        self._settings = settings
        self._backing = backing
        self._hurry = hurry

    async def __call__(self, request: Request) -> Response:
        """Answer one request. Raises RefusedError."""
        asked = read_request(request.query_params, request.headers, self._settings)
        uploads: list[Upload] = []
        try:
            await received(request.receive, self._settings, asked.boundary, self._backing.incoming, uploads)
            accepted = await self._taken_in(asked, uploads)
        except ClientGoneError:
            # Nobody reads it.
            return Response(status_code=400)
        except OSError as error:
            raise _not_stored(error) from error
        finally:
            for upload in uploads:
                upload.discard()
        identities = [one.id for one in accepted]
        answers = await self._waited_for(request, identities, asked.wait) if asked.wait > 0 else None
        if answers is None:
            return _later(identities, asked)
        if len(answers) == 1 and all(result.outcome == "unreadable" for result in answers[0].results):
            reason = next((result.reason for result in answers[0].results if result.reason), "it is no image")
            raise RefusedError(422, reason, identity=answers[0].id)
        return Response(msgspec.json.encode(Answers(answers)), 200, media_type=JSON)

    async def _taken_in(self, asked: Asked, uploads: list[Upload]) -> list[Accepted]:
        """Return what the queue has on disk now. Raises RefusedError where it does not take all of it."""
        fingerprint = _fingerprint(asked, uploads)
        # As many digits as a digest has, and never twice.
        key = secrets.token_hex(32) if asked.key is None else hashlib.sha256(asked.key.encode()).hexdigest()
        arrivals = [
            Arrival(
                door="http",
                key=f"http {'drawn' if asked.key is None else 'given'} {key} {number}",
                name="upload" if len(uploads) == 1 else f"upload {number}",
                content=upload.content,
                context={REQUEST: fingerprint},
                explain=asked.explain,
            )
            for number, upload in enumerate(uploads, 1)
        ]
        if asked.key is None:
            return await self._stored(arrivals)
        # What a key stands for is decided by the first file, before others come in under it.
        first = await self._stored(arrivals[:1])
        if first[0].known:
            await self._require_same(first[0].id, fingerprint)
        return first + await self._stored(arrivals[1:])

    async def _stored(self, arrivals: list[Arrival]) -> list[Accepted]:
        futures = [asyncio.wrap_future(self._backing.queue.accept(arrival)) for arrival in arrivals]
        # Not one is left alone while it moves its file, or cancelled, which would keep its place taken.
        found = await asyncio.shield(asyncio.gather(*futures, return_exceptions=True))
        if failed := next((one for one in found if isinstance(one, BaseException)), None):
            raise _not_stored(failed) from failed
        return [one for one in found if isinstance(one, Accepted)]

    async def _require_same(self, identity: str, fingerprint: str) -> None:
        arrival = await asyncio.to_thread(self._backing.queue.arrival, identity)
        if arrival is None:
            raise RefusedError(
                503, "what came before under this Idempotency-Key is just forgotten", RETRY_AFTER
            )
        if arrival.context.get(REQUEST) != fingerprint:
            raise RefusedError(
                422, "another request came under this Idempotency-Key before; each request needs its own"
            )

    async def _waited_for(
        self, request: Request, identities: list[str], seconds: float
    ) -> list[Answer] | None:
        """Return the answers, None when there are not all of them in time."""
        answers = asyncio.gather(
            *(asyncio.wrap_future(self._backing.queue.wait(identity)) for identity in identities)
        )
        gone = asyncio.ensure_future(_gone(request))
        awaited: set[asyncio.Future[Any]] = {answers, gone, self._hurry}
        try:
            await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return answers.result() if answers.done() else None
        except KeyError as error:
            raise RefusedError(503, "the answer is just forgotten; send it again", RETRY_AFTER) from error
        finally:
            gone.cancel()
            answers.cancel()
            # Whose exception nobody looks at is logged as a fault.
            await asyncio.gather(gone, answers, return_exceptions=True)


async def _gone(request: Request) -> None:
    """Return when the client hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _fingerprint(asked: Asked, uploads: list[Upload]) -> str:
    """Return what two requests have in common that ask the same, 64 hexadecimal digits."""
    text = " ".join([str(asked.explain), *(upload.digest for upload in uploads)])
    return hashlib.sha256(text.encode()).hexdigest()


def _later(identities: list[str], asked: Asked) -> Response:
    waiting = [pending(identity) for identity in identities]
    headers = {"Location": waiting[0].location} if len(waiting) == 1 else {}
    if asked.preferred:
        headers["Preference-Applied"] = "respond-async" if asked.wait == 0 else f"wait={asked.wait:g}"
    return Response(msgspec.json.encode(PendingAnswers(waiting)), 202, headers, JSON)


def _not_stored(error: BaseException) -> RefusedError:
    """Return the answer where the queue did not take a file: it may take it later."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or isinstance(error, FullDiskError):
        log.error("nothing comes in by HTTP: %s", error)
        return RefusedError(503, "the disk of this service is full", RETRY_AFTER)
    if isinstance(error, StorageError | OSError):
        log.error("nothing comes in by HTTP: %s", error)
        return RefusedError(503, "this service cannot store what comes in now", RETRY_AFTER)
    if isinstance(error, QueueFullError):
        return RefusedError(503, str(error), RETRY_AFTER)
    raise error
