"""The OpenAPI document promises all that the gateway answers: schemathesis tries to disprove it."""

import json
import sys
import urllib.request
from pathlib import Path

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

sys.path.insert(0, str(Path(__file__).parent))
from fifo_server import serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
"""Acceptance of all that fits the schema is not promised: a spec has rules no schema tells."""


@schemathesis.serializer("application/gzip")
def as_it_is(_context, value):
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def url():
    with serving("--dry", port=0, keepalive_s=0.2) as address:
        yield address


@pytest.fixture(scope="module")
def document(url):
    with urllib.request.urlopen(f"{url}/v1/openapi.json", timeout=10) as answer:
        return json.load(answer)


STREAMS = {"/v1/watch", "/v1/jobs/{job}/logs"}
"""They have no end to check; test_gateway_routes reads them."""


def test_answers_are_as_declared(document, url):
    tried = 0
    api = schemathesis.openapi.from_dict(document)
    for found in api.get_all_operations():
        operation = found.ok()
        if operation.path not in STREAMS:
            tried += 1
            fuzz(operation, operation.definition.raw, url)
    assert tried == len(list(api.get_all_operations())) - len(STREAMS)


def fuzz(operation, declared, url):
    """A few requests that fit the schema and a few that do not, the same ones each time."""

    modes = [schemathesis.GenerationMode.POSITIVE]
    in_query = any(part["in"] == "query" for part in declared.get("parameters", ()))
    in_json = "application/json" in declared.get("requestBody", {}).get("content", ())
    if in_query or in_json:  # else it takes a path or bytes, which are never wrong
        modes.append(schemathesis.GenerationMode.NEGATIVE)
    for mode in modes:

        @settings(
            max_examples=15,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case):
            case.call_and_validate(base_url=url, checks=CHECKS, timeout=10)

        one()


def test_the_document_is_whole(document):
    text = json.dumps(document)
    named = set(document["components"]["schemas"])
    wanted = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert wanted <= named
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], path
    assert len({op["operationId"] for m in document["paths"].values() for op in m.values()}) == 38


def test_views_fit_their_schemas(document, url):
    for path, name in (("nodes", "NodeView"), ("clusters", "ClusterView"), ("offers", "OfferView")):
        with urllib.request.urlopen(f"{url}/v1/{path}", timeout=10) as answer:
            rows = json.load(answer)
        whole = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        for row in rows:
            jsonschema.validate(row, whole)
