"""The table of routes for order systems, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from broker.api import bindings, operations
from broker.api.idempotent import Handler
from broker.api.operations import Operation


@dataclass(frozen=True, slots=True)
class Route:
    """One operation; ``scope`` is what the API key must allow, ``operation`` what /openapi.json says of it."""

    method: str
    path: str
    scope: str
    handler: Handler
    operation: Operation | None = None


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/bindings", "bind", bindings.create, operations.CREATE),
    Route("GET", "/v1/bindings/{id}", "read", bindings.show, operations.SHOW),
    Route("DELETE", "/v1/bindings/{id}", "bind", bindings.delete, operations.DELETE),
)
