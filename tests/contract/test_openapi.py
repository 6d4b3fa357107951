"""``/openapi.json``: equal to the table of routes, valid, and cheap to ask for again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from broker.api.context import Limits, Services
from broker.api.openapi import document
from broker.api.operations import OPEN
from broker.api.routes import ROUTES, Route
from broker.api.server import build
from broker.domain.modes import MODES
from broker.metrics import Metrics
from tests.contract.service import Client

_METHODS = {"get", "put", "post", "patch", "delete"}


async def _nothing() -> tuple[Mapping[str, bool], Mapping[str, bool]]:
    return {}, {}


def _operations(described: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method.upper(), path) for path, item in described["paths"].items() for method in item if method in _METHODS
    }


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The document, as sent."""
    return dict(orjson.loads(orjson.dumps(document(ROUTES, OPEN))))


def test_it_equals_the_routes_that_are_served(described: dict[str, Any]) -> None:
    """Every route of the application is described, and nothing else; HEAD goes with GET and is not listed."""
    app = build(cast("Services", SimpleNamespace(limits=Limits())), _nothing, Metrics())
    served = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert _operations(described) == served
    assert {(route.method, route.path) for route in ROUTES} < served


def test_it_is_valid(described: dict[str, Any]) -> None:
    """The document is OpenAPI 3.1 by the specification's own schema."""
    assert described["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(described).iter_errors()] == []


def test_examples_are_of_their_schemas(described: dict[str, Any]) -> None:
    """What the document shows as an example is what its schema says."""
    shown = 0
    for item in described["paths"].values():
        for operation in item.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            contents = [kind for body in bodies for kind in body.get("content", {}).values() if "example" in kind]
            contents += [
                kind for body in described["components"]["responses"].values() for kind in body["content"].values()
            ]
            asked = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            contents += [{**asked, "example": example["value"]} for example in asked.get("examples", {}).values()]
            for content in contents:
                schema = {**content["schema"], "components": described["components"]}
                assert [error.message for error in OAS31Validator(schema).iter_errors(content["example"])] == []
                shown += 1
    assert shown > 20


def test_fields_tell_their_modes(described: dict[str, Any]) -> None:
    """Every field of a bind and of a change says which modes know it, and a bind has an example of each mode."""
    schemas = described["components"]["schemas"]
    fields = schemas["BindRequest"]["properties"] | schemas["ChangeRequest"]["properties"]
    del fields["on_conflict"]
    for name, schema in fields.items():
        assert re.search(r"Every mode\.|Mode [a-z, ]+\.|No mode can change it\.", schema["description"]), name
    extension = schemas["BindRequest"]["properties"]["extension"]["description"]
    assert extension.endswith("Mode axe. On the wire: axe `extendNum`.")
    asked = described["paths"]["/v1/bindings"]["post"]["requestBody"]["content"]["application/json"]
    assert set(asked["examples"]) == set(MODES)


def test_keys_and_scopes(described: dict[str, Any]) -> None:
    """What needs a key says so, with the scope; what does not has no security."""
    for route in ROUTES:
        told = described["paths"][route.path][route.method.lower()]
        assert told["security"] == [{"bearer": []}]
        assert f"`{route.scope}`" in told["description"]
        assert {"400", "401", "403", "413", "415", "422", "500", "503"} <= set(told["responses"])
    for path in OPEN:
        assert "security" not in described["paths"][path]["get"]


def test_every_route_is_described() -> None:
    """Who adds a route describes it in broker/api/operations.py and shows it in docs/api.md."""
    assert [(route.method, route.path) for route in ROUTES if route.operation is None] == []


def test_a_route_under_construction_does_not_stop_the_start() -> None:
    """A route without a description is in the document all the same, which stays valid."""
    bare = document([Route("GET", "/v1/bare:ly", "read", ROUTES[0].handler)], {})
    assert _operations(bare) == {("GET", "/v1/bare:ly")}
    assert [str(error) for error in OpenAPIV31SpecValidator(bare).iter_errors()] == []


async def test_it_is_served_without_a_key(client: Client, described: dict[str, Any]) -> None:
    """GET answers the document as JSON with an ETag, without a key; HEAD likewise."""
    answer = await client.ask("GET", "/openapi.json", key=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body == described
    assert answer.headers["X-Request-Id"].startswith("req_")
    head = await client.ask("HEAD", "/openapi.json", key=None)
    assert (head.status, head.raw, head.headers["ETag"]) == (200, b"", answer.headers["ETag"])


async def test_it_is_not_sent_twice(client: Client) -> None:
    """If-None-Match with the ETag answers 304 without a body, from every worker; another tag the document."""
    tag = (await client.ask("GET", "/openapi.json", key=None)).headers["ETag"]
    for _ in range(4):
        headers = {"If-None-Match": tag, "Connection": "close"}
        again = await client.ask("GET", "/openapi.json", key=None, headers=headers)
        assert (again.status, again.raw, again.headers["ETag"]) == (304, b"", tag)
    other = await client.ask("GET", "/openapi.json", key=None, headers={"If-None-Match": '"other"'})
    assert other.status == 200
