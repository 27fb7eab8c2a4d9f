"""The OpenAPI document: it is the one in `docs`, it holds together, and the door does what it says."""

import json

import pytest

from docs.generators.openapi import FILE, openapi_text
from fedmedclip.edge_client.serving.http.openapi import document
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from tests.edge_client.serving.http.standin import asked, door_of

TOKEN = "0123456789abcdef"


def test_the_document_in_docs_is_made_of_the_code():
    assert FILE.read_bytes() == openapi_text(), "python -m docs.generators.openapi"


def test_the_door_shows_it(door):
    assert asked(door, "GET", "/openapi.json")[2] == document()


def test_every_reference_leads_somewhere_and_every_status_has_its_shape():
    found = document()
    schemas = found["components"]["schemas"]

    def references(node):
        if isinstance(node, dict):
            if "$ref" in node:
                yield node["$ref"]
            for inner in node.values():
                yield from references(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from references(inner)

    assert {reference.rpartition("/")[2] for reference in references(found)} <= set(schemas)
    assert {"Answer", "Result", "Provenance", "Problem"} <= set(schemas)
    for operations in found["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                assert response["description"]
                kinds = list(response["content"])
                assert (kinds == ["application/problem+json"]) == (int(status) >= 400)
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, TOKEN])
def test_the_door_does_what_the_document_says(queue, token):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    # No schema says which bytes are an image, or which key is another request's.
    excluded = [positive_data_acceptance]
    with door_of(queue, HttpSettings(token=token, longest_wait_seconds=1.0)) as door:
        base = f"http://127.0.0.1:{door.port}"
        schema = schemathesis.openapi.from_url(f"{base}/openapi.json")
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        for operation in schema.get_all_operations():
            operation = operation.ok()

            @settings(
                max_examples=100, deadline=None, derandomize=True, database=None,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy())
            def check(case):
                case.call_and_validate(base_url=base, headers=headers, excluded_checks=excluded)

            check()
