"""Schemathesis over the OpenAPI document: the broker answers what the document says, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
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
        case.headers["Authorization"] = f"Bearer {service.key}"
        case.call_and_validate(base_url=service.api, session=http, checks=_CONFORM)

    fuzz()
