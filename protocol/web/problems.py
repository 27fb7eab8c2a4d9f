"""What the door says when it cannot do what it is asked: problem details (RFC 9457), in one line."""

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from fedmedclip.protocol.visible import one_line

MEDIA_TYPE = "application/problem+json"
# Of a box that is busy: long enough to answer some images, short enough for one who waits.
RETRY_AFTER = {"Retry-After": "5"}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request is not answered: `detail` is one line for a person. `id` is that of the stored answer,
    where a file was taken in but could not be read."""

    title: str
    status: int
    detail: str
    id: str | None = None


class RefusedError(Exception):
    """A request that is answered by a problem, with this status, one line, and headers beside it."""

    def __init__(
        self, status: int, detail: str, headers: Mapping[str, str] | None = None, identity: str | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.identity = identity

    def response(self) -> Response:
        """Return what is sent."""
        return problem_response(self.status, self.detail, self.headers, self.identity)


def problem_response(
    status: int, detail: str, headers: Mapping[str, str] | None = None, identity: str | None = None
) -> Response:
    """Return a problem as it is sent."""
    return Response(problem_bytes(status, detail, identity), status, headers, MEDIA_TYPE)


def problem_bytes(status: int, detail: str, identity: str | None = None) -> bytes:
    """Return a problem as JSON."""
    return msgspec.json.encode(Problem(HTTPStatus(status).phrase, status, one_line(detail), identity))
