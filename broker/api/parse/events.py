"""Which events are asked for."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broker.api.parse.body import checked
from broker.api.parse.listing import query_of

_NUMBER_CHARS = 6


class EventsQuery(BaseModel):
    """Parameters of ``GET /v1/events``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    after: Annotated[str, Field(pattern=r"^(latest|evt_[0-9a-v]{20})$")] | None = None
    types: Annotated[str, Field(pattern=r"^[a-z_.*]+(,[a-z_.*]+)*$", max_length=500)] | None = None
    binding_id: Annotated[str, Field(pattern=r"^bnd_[0-9a-v]{32}$")] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 100
    wait_s: Annotated[int, Field(ge=0, le=30)] = 0


def events_query(request: web.Request) -> EventsQuery:
    """Read ``GET /v1/events``.

    Raises:
        Invalid: with one error for every bad parameter.
    """
    given = query_of(request)
    for name in ("limit", "wait_s"):
        value = given.get(name, "")
        if value.isascii() and value.isdigit() and len(value) <= _NUMBER_CHARS:
            given[name] = int(value)
    return checked(EventsQuery, given)
