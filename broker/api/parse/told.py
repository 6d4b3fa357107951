"""Which calls, records or messages are asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from broker.api.parse.body import checked
from broker.api.parse.fields import OrderId, Phone
from broker.api.parse.listing import query_of
from broker.domain.reach import moment

Moment = Annotated[
    datetime,
    PlainValidator(lambda value: moment(value if isinstance(value, str) else "")),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


class ToldQuery(BaseModel):
    """Filters in a query string; together they narrow."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    binding_id: Annotated[str, Field(pattern=r"^bnd_[0-9a-v]{32}$")] | None = None
    order_id: OrderId | None = None
    x: Annotated[str, Field(pattern=r"^[+][0-9]{3,30}$")] | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class ToldSearch(ToldQuery):
    """The filters in a body: a party never stands in a URL."""

    party: Phone | None = None


def told_query(request: web.Request) -> ToldQuery:
    """Read the filters from the query string; a blank before an X, or before a zone, is its ``+``.

    Raises:
        Invalid: with one error for every bad parameter.
    """
    given = query_of(request, plus=frozenset({"x", "since", "until"}))
    if "limit" in given and given["limit"].isascii() and given["limit"].isdigit() and len(given["limit"]) <= 6:  # noqa: PLR2004 - more digits are refused as they are
        given["limit"] = int(given["limit"])
    return checked(ToldQuery, given)
