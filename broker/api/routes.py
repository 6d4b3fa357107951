"""The table of routes for order systems, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from broker.api import bindings
from broker.api.idempotent import Handler


@dataclass(frozen=True, slots=True)
class Route:
    """One operation; ``scope`` is what the API key must allow."""

    method: str
    path: str
    scope: str
    handler: Handler


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/bindings", "bind", bindings.create),
    Route("GET", "/v1/bindings/{id}", "read", bindings.show),
    Route("DELETE", "/v1/bindings/{id}", "bind", bindings.delete),
)
