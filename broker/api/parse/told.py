"""Which calls, records or messages are asked for, and over which days they are added up."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Self
from zoneinfo import available_timezones

from aiohttp import web
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from broker.api.parse.body import checked
from broker.api.parse.fields import OrderId, Phone
from broker.api.parse.listing import query_of
from broker.domain.reach import moment

Moment = Annotated[
    datetime,
    PlainValidator(lambda value: moment(value if isinstance(value, str) else "")),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


#: Days of one summary.
LONGEST_DAYS = 92
_APART = ("pool", "area", "x")


def _day(value: object) -> date:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value if isinstance(value, str) and len(value) == len("2026-11-22") else "")
    except ValueError:
        raise ValueError("must be a day, as 2026-11-22") from None


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError("must be a time zone by its name, as Asia/Shanghai")
    return value


def _by(value: object) -> tuple[str, ...]:
    given = tuple(value.split(",")) if isinstance(value, str) else ()
    if not set(given) <= set(_APART) or len(set(given)) < len(given):
        raise ValueError("must be some of pool, area and x, with commas")
    return given


class SummaryQuery(BaseModel):
    """Days of a time zone, both included, and what they are told apart by."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    first: Annotated[date, PlainValidator(_day)]
    last: Annotated[date, PlainValidator(_day)]
    zone: Annotated[str, Field(max_length=64), AfterValidator(_zone)] = "Asia/Shanghai"
    by: Annotated[tuple[str, ...], PlainValidator(_by)] = ()

    @model_validator(mode="after")
    def _short(self) -> Self:
        if not timedelta(0) <= self.last - self.first < timedelta(days=LONGEST_DAYS):
            raise ValueError(f"last must not be before first, nor {LONGEST_DAYS} days or more after it")
        return self


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


def summary_query(request: web.Request) -> SummaryQuery:
    """Read which days are to be added up.

    Raises:
        Invalid: with one error for every bad parameter.
    """
    return checked(SummaryQuery, query_of(request))
