"""The OpenAPI 3.1 document of the door, whose structures are those of the code."""

from typing import Any

import msgspec

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.http.backing import Model
from fedmedclip.edge_client.serving.http.predict import Answers, Pending, PendingAnswers
from fedmedclip.protocol.web.problems import MEDIA_TYPE, Problem

_JSON = "application/json"
_BYTES = {"schema": {"type": "string", "format": "binary", "minLength": 1}}
_FILES = {
    "schema": {
        "type": "object",
        "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
        "required": ["file"],
    }
}
_PROBLEMS = {
    400: "The request cannot be read, or asks for what there is not.",
    401: "The token is missing or wrong.",
    403: "A page of another web site asks.",
    404: "There is no answer of this id, or no longer.",
    408: "The body came too slowly.",
    411: "The request does not say how long its body is.",
    413: "The body is too large, or holds too many files.",
    415: "The body is of a type that is no image, or compressed.",
    421: "This machine is not called by this name.",
    422: "The one file of the request could not be read; `id` is that of its stored answer. Or another "
    "request came under this Idempotency-Key.",
    503: "Nothing is answered or taken in at this moment; come again after Retry-After.",
}
_LOCATION = {"description": "Where the answer will be.", "schema": {"type": "string"}}
_RETRY = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}


def document() -> dict[str, Any]:
    """Return the document, ready for JSON; the same for every service of this version."""
    _, schemas = msgspec.json.schema_components(
        [Answer, Answers, Model, Pending, PendingAnswers, Problem], ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fedmedclip serve",
            "version": "1",
            "description": "Images in, answers out. Research use only; not for diagnosis.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": {
            "/v1/predict": {"post": _predict()},
            "/v1/answers/{id}": {"get": _answer()},
            "/v1/health": {"get": _health()},
            "/v1/model": {"get": _get("What answers now.", _content(_JSON, "Model"), (401, 403, 421, 503))},
            "/metrics": {"get": _get("Numbers for Prometheus.", _text(), (401, 403, 421))},
            "/openapi.json": {
                "get": {
                    **_get("This document.", {_JSON: {"schema": {"type": "object"}}}, (403, 421)),
                    "security": [],
                }
            },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of `[http]`; a door on 127.0.0.1 may have none.",
                }
            },
        },
    }


def _predict() -> dict[str, Any]:
    return {
        "operationId": "predict",
        "summary": "Answer one image, or several files.",
        "description": "The body is the bytes of one image (or DICOM file), or `multipart/form-data` in "
        "which every part is a file. Whatever is answered 200, 202 or, with an `id`, 422 is on disk. A file "
        "that cannot be read is stored and answered like others: asked for alone it gives 422; with others, "
        "or when its answer is fetched, 200 and the outcome `unreadable`. After 503 the request may be sent "
        "again; with an `Idempotency-Key` nothing of it is answered twice.",
        "parameters": [
            _query("explain", {"type": "string", "enum": ["0", "1"]}, "1: say which regions carry it."),
            _query(
                "wait",
                {"type": "number", "minimum": 0},
                "Seconds to wait for the answers; 0: do not wait. At most longest_wait_seconds of `[http]`.",
            ),
            _header(
                "Idempotency-Key",
                {"type": "string", "pattern": "^[!-~]{1,255}$"},
                "A name of the client's own for this request: sent again under it, the same files give the "
                "stored answers, and other files 422.",
            ),
            _header(
                "Prefer",
                {"type": "string"},
                "RFC 7240: `respond-async` does not wait, `wait=SECONDS` waits so long.",
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": _BYTES,
                "application/dicom": _BYTES,
                "image/*": _BYTES,
                "multipart/form-data": _FILES,
            },
        },
        "responses": {
            "200": {
                "description": "The answers, in the order of the files.",
                "content": _content(_JSON, "Answers"),
            },
            "202": {
                "description": "All files are stored; at least one has no answer yet.",
                "headers": {"Location": _LOCATION},
                "content": _content(_JSON, "PendingAnswers"),
            },
            **_problems(400, 401, 403, 408, 411, 413, 415, 421, 422, 503),
        },
    }


def _answer() -> dict[str, Any]:
    operation = _get("One answer.", _content(_JSON, "Answer"), (401, 403, 404, 421))
    operation["parameters"] = [
        {
            "name": "id",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        }
    ]
    operation["responses"]["202"] = {
        "description": "There is no answer yet.",
        "headers": {"Location": _LOCATION, **_RETRY},
        "content": _content(_JSON, "Pending"),
    }
    operation["operationId"] = "answer"
    return operation


def _health() -> dict[str, Any]:
    ready = {"type": "object", "properties": {"status": {"const": "ready"}}, "required": ["status"]}
    return {
        **_get("Whether images are answered.", {_JSON: {"schema": ready}}, (403, 421, 503)),
        "security": [],
    }


def _get(summary: str, content: dict[str, Any], problems: tuple[int, ...]) -> dict[str, Any]:
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}, **_problems(*problems)},
    }


def _problems(*statuses: int) -> dict[str, Any]:
    found = {}
    for status in statuses:
        response: dict[str, Any] = {
            "description": _PROBLEMS[status], "content": _content(MEDIA_TYPE, "Problem")
        }  # fmt: skip
        if status == 503:
            response["headers"] = _RETRY
        found[str(status)] = response
    return found


def _content(media_type: str, schema: str) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _text() -> dict[str, Any]:
    return {"text/plain": {"schema": {"type": "string"}}}


def _query(name: str, schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": meaning}


def _header(name: str, schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": meaning}
