"""Schemathesis over the OpenAPI document: the broker answers what the document says, whatever is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.generation.modes import GenerationMode

from broker.api.openapi import document
from broker.api.operations import OPEN
from broker.api.routes import ROUTES
from tests.contract.service import Service

_FUZZ = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
_SCHEMA = schemathesis.openapi.from_dict(orjson.loads(orjson.dumps(document(ROUTES, OPEN))))
_OPERATIONS = {found.ok().label: found.ok() for found in _SCHEMA.get_all_operations() if isinstance(found, Ok)}
load_all_checks()
_CONFORM: list[Any] = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


def _asked() -> Iterator[tuple[str, GenerationMode]]:
    for label, operation in _OPERATIONS.items():
        yield label, GenerationMode.POSITIVE
        if operation.definition.raw["parameters"] or operation.body:  # else there is nothing to do wrong
            yield label, GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    """Connections that are kept."""
    with requests.Session() as session:
        yield session


@pytest.mark.parametrize(("label", "mode"), list(_asked()))
def test_answers_are_those_of_the_document(
    service: Service, http: requests.Session, label: str, mode: GenerationMode
) -> None:
    """Requests as the document has them, and others: no 5xx; status, type, headers and body are as declared."""

    @_FUZZ
    @given(_OPERATIONS[label].as_strategy(generation_mode=mode))
    def fuzz(case: Any) -> None:
        (case.query or {}).pop("wait_s", None)  # how long it waits for events is tests/contract/test_events.py's
        case.headers["Authorization"] = f"Bearer {service.key}"
        case.call_and_validate(base_url=service.api, session=http, checks=_CONFORM)

    fuzz()


def test_sequences_follow_the_links(service: Service, http: requests.Session) -> None:
    """Bind, then show, change and release by the links of the answer, in any order: each answer is as declared."""
    steps: list[tuple[str, int]] = []

    # Among all routes a walk of this length hardly ever comes from a bind to what its answer leads to.
    walked = _SCHEMA.include(path=["/v1/bindings", "/v1/bindings/{id}"])

    class Walk(walked.as_state_machine()):  # type: ignore[misc] # made at run time
        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            """Every request has the key."""
            key = {"Authorization": f"Bearer {service.key}"}
            return {"base_url": service.api, "session": http, "headers": key}

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            """The same checks as for single requests."""
            steps.append((case.operation.label, response.status_code))
            case.validate_response(response, checks=_CONFORM)

    run_state_machine_as_test(Walk, settings=settings(_FUZZ, max_examples=25, stateful_step_count=6))
    # Which links a walk of this length draws is chance; that some were followed is what makes it a walk.
    assert {(f"{method} /v1/bindings/{{id}}", 200) for method in ("GET", "PATCH", "DELETE")} & set(steps)


_IN_PATHS = sorted((route.method, route.path) for route in ROUTES if "{" in route.path)


@pytest.mark.parametrize("value", ["%00", "a%00b", "%ff", "%ED%A0%80", "%2e%2e", "%2F", "%0d%0a", "x" * 5000, "\u6f22"])
@pytest.mark.parametrize(("method", "path"), _IN_PATHS)
def test_hostile_path_parameters(service: Service, http: requests.Session, method: str, path: str, value: str) -> None:
    """What PostgreSQL or UTF-8 cannot hold is refused or unknown where a path takes a name, and never a 5xx."""
    url = service.api + re.sub(r"{\w+}", lambda _: value, path)
    answer = http.request(method, url, headers={"Authorization": f"Bearer {service.key}"}, timeout=30)
    assert str(answer.status_code) in _SCHEMA.raw_schema["paths"][path][method.lower()]["responses"]
    assert answer.status_code < 500
    assert answer.ok or answer.headers["Content-Type"].startswith("application/problem+json")
