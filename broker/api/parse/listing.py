"""Which bindings are asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broker.api.parse.body import checked, pointer
from broker.api.parse.fields import GraceSeconds, OrderId, Phone
from broker.errors import FieldError, Invalid


class ListRequest(BaseModel):
    """Filters of ``GET /v1/bindings``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    order_id: OrderId | None = None
    x: Annotated[str, Field(pattern=r"^[+][0-9]{3,30}$")] | None = None
    state: Literal["pending", "active", "releasing", "released", "failed"] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class SearchRequest(ListRequest):
    """Body of ``POST /v1/bindings:search``: a party never stands in a URL."""

    party: Phone | None = None


class ReleaseQuery(BaseModel):
    """Parameters of ``DELETE /v1/bindings/{id}`` and ``POST /v1/orders/{order_id}:release``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    grace_s: GraceSeconds | None = None


def query_of(request: web.Request, *, plus: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the parameters of the query string; the first blank of those in ``plus`` is the ``+`` that it was.

    Raises:
        Invalid: one is given more than once.
    """
    given: dict[str, Any] = {}
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise Invalid(
                "A parameter is wrong; see errors.", errors=(FieldError(pointer((name,)), "is given more than once"),)
            )
        value = request.query[name]
        given[name] = value.replace(" ", "+", 1) if name in plus else value
    return given


def release_query(request: web.Request) -> ReleaseQuery:
    """Read how a binding is to be released.

    Raises:
        Invalid: with one error for every bad parameter.
    """
    return checked(ReleaseQuery, query_of(request))


def list_query(request: web.Request) -> ListRequest:
    """Read the filters of a listing from the query string; a blank before an X is its ``+``.

    Raises:
        Invalid: with one error for every bad parameter.
    """
    given = query_of(request, plus=frozenset({"x"}))
    if "limit" in given and given["limit"].isascii() and given["limit"].isdigit() and len(given["limit"]) <= 6:  # noqa: PLR2004 - more digits are refused as they are
        given["limit"] = int(given["limit"])
    return checked(ListRequest, given)
