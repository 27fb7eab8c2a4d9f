"""What a request to answer images asks for, from its query and its headers."""

import math
import re
from dataclasses import dataclass

from starlette.datastructures import Headers, QueryParams

from fedmedclip.edge_client.serving.http.multipart import MultipartError, boundary_of, media_type
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.edge_client.serving.http.uploads import too_large
from fedmedclip.protocol.web.problems import RefusedError

ACCEPTED_TYPES = ("image/*", "application/dicom", "application/octet-stream", "multipart/form-data")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,6})\"?")


@dataclass(frozen=True)
class Asked:
    """What is asked. `wait` is for how many seconds, `key` the client's own, None without one.

    `boundary` parts the files of `multipart/form-data`; None where the body is one file. `preferred`: the
    wait came from the header `Prefer`.
    """

    explain: bool
    wait: float
    key: str | None
    boundary: bytes | None
    preferred: bool


def read_request(query: QueryParams, headers: Headers, settings: HttpSettings) -> Asked:
    """Return what a request asks for, before its body is read. Raises RefusedError."""
    options: dict[str, str] = {}
    for name, value in query.multi_items():
        if name not in ("explain", "wait"):
            raise RefusedError(400, "there is no such option in the query; there are explain and wait")
        if name in options:
            raise RefusedError(400, f"{name} is given twice")
        options[name] = value
    if (explain := options.get("explain", "0").lower()) not in _FLAGS:
        raise RefusedError(400, "explain is 1 or 0")
    preferred = _preferred_wait(headers)
    wait = settings.longest_wait_seconds if preferred is None else preferred
    if "wait" in options:
        wait = _seconds(options["wait"])
    boundary = _boundary(headers)
    _require_length(headers, settings)
    return Asked(
        _FLAGS[explain],
        min(wait, settings.longest_wait_seconds),
        _key(headers),
        boundary,
        preferred is not None and "wait" not in options,
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise RefusedError(400, "wait is a number of seconds; with 0 the answer is fetched later")
    return seconds


def _preferred_wait(headers: Headers) -> float | None:
    """Return for how long the header `Prefer` (RFC 7240) lets the client wait; None where it says nothing."""
    words = [word.strip().lower() for line in headers.getlist("prefer") for word in line.split(",")]
    waits = [float(found[1]) for word in words if (found := _WAIT.fullmatch(word))]
    # Together they mean: this long, and then not at once.
    if waits:
        return waits[0]
    return 0.0 if "respond-async" in words else None


def _key(headers: Headers) -> str | None:
    given = headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise RefusedError(
            400, "Idempotency-Key has to be one text of 1 to 255 ASCII characters without blanks"
        )
    return given[0]


def _boundary(headers: Headers) -> bytes | None:
    """Return the boundary of several files, None for one. Raises RefusedError for types that are no image."""
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise RefusedError(
            415, "send the body without Content-Encoding: it may be compressed to anything",
            {"Accept-Encoding": "identity"},
        )  # fmt: skip
    given = headers.get("content-type")
    if given is None:
        return None
    kind, parameters = media_type(given)
    if kind == "multipart/form-data":
        try:
            return boundary_of(parameters)
        except MultipartError as error:
            raise RefusedError(400, str(error)) from error
    if not kind.startswith("image/") and kind not in ACCEPTED_TYPES:
        raise RefusedError(
            415,
            "send an image as application/octet-stream, application/dicom or image/..., or several as "
            "multipart/form-data; `curl --data-binary` needs -H 'Content-Type: application/octet-stream'",
            {"Accept": ", ".join(ACCEPTED_TYPES)},
        )
    return None


def _require_length(headers: Headers, settings: HttpSettings) -> None:
    length = headers.get("content-length")
    if length is None:
        if "transfer-encoding" not in headers:
            raise RefusedError(411, "say how long the body is (Content-Length), or send it in chunks")
    elif not (length.isascii() and length.isdigit()):
        raise RefusedError(400, "Content-Length is no number")
    elif len(length) > 18 or int(length) > settings.largest_upload_bytes:
        raise too_large(settings)
