"""Questions who is reached: in a body, or in a query string."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from broker.api.parse.body import checked
from broker.api.parse.fields import Phone
from broker.api.parse.listing import query_of
from broker.domain.reach import moment


def _moment(value: object) -> datetime:
    return moment(value if isinstance(value, str) else "")


class ReachQuery(BaseModel):
    """Parameters of ``GET /v1/reach``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    x: Annotated[str, Field(pattern=r"^[+][0-9]{3,30}$", description="The number that is dialled.")]
    caller: Annotated[Phone, Field(description="Who dials it.")]
    digits: (
        Annotated[str, Field(pattern=r"^[0-9]{1,4}$", description="The extension that is dialled then; mode axe.")]
        | None
    ) = None
    at: (
        Annotated[
            datetime,
            PlainValidator(_moment),
            WithJsonSchema({"type": "string", "format": "date-time"}),
            Field(description="At this moment, which has passed; absent = now."),
        ]
        | None
    ) = None


class ReachRequest(ReachQuery):
    """Body of ``POST /v1/reach:query``."""

    reveal: Annotated[bool, Field(description="Show the number in clear; needs the scope reveal and is noted.")] = False


def reach_query(request: web.Request) -> ReachQuery:
    """Read ``GET /v1/reach``.

    Raises:
        Invalid: with one error for every bad parameter.
    """
    return checked(ReachQuery, query_of(request, plus=frozenset({"x", "caller", "at"})))
