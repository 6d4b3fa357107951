"""What calls and messages of an app cost, and what they add up to."""

from __future__ import annotations

from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator

from broker.errors import FieldError, Invalid, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.flows.operate.fields import Area, Given, Number
from broker.store import summary
from broker.store.statements import statements
from broker.store.summary import MOST_ROWS, Period

_PLACES = 6
_MOST = Decimal(100_000)


def _amount(value: str) -> str:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal(-1)
    exponent = amount.as_tuple().exponent
    if not amount.is_finite() or not 0 <= amount < _MOST or not isinstance(exponent, int) or exponent < -_PLACES:
        raise ValueError(f"must be a decimal number from 0 with at most {_PLACES} places, as 0.06")
    return str(amount)


def _day(value: object) -> date:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("must be a day, as 2026-11-22") from None


Amount = Annotated[str, AfterValidator(_amount)]
Day = Annotated[date, PlainValidator(_day)]


class Where(Given):
    """Whose price: of an X, of a city, or of all; from which day on."""

    area_code: Area | None = None
    x: Number | None = None
    valid_from: Day | None = None


class Price(Where):
    """A price."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    call_minute: Amount
    sms: Amount | None = None


async def put(desk: Desk, app: str, price: Price) -> Shown:
    """Set a price, or another one in its place.

    Raises:
        NotFound: there is no such app.
        Invalid: a price of a city and of an X at once, or of a city without a pool.
    """
    owner = await app_id(desk, app)
    if price.area_code is not None and price.x is not None:
        raise Invalid("Some fields are wrong; see errors.", errors=(FieldError("/x", "has its city already"),))
    sql = statements("summary")
    if price.area_code is not None and not await desk.db.fetch(sql["pool_in_area"], owner, price.area_code):
        wrong = FieldError("/area_code", "is no city of a pool of this app")
        raise Invalid("Some fields are wrong; see errors.", errors=(wrong,))
    await desk.db.fetch(
        sql["set_price"], owner, price.area_code, price.x, price.valid_from, price.currency, price.call_minute,
        price.sms,
    )  # fmt: skip
    return price.model_dump()


async def every(desk: Desk, app: str) -> list[Shown]:
    """Return the prices of an app."""
    return [dict(row) for row in await desk.db.fetch(statements("summary")["prices"], await app_id(desk, app))]


async def remove(desk: Desk, app: str, where: Where) -> None:
    """Remove a price.

    Raises:
        NotFound: there is no such app, or no such price.
    """
    owner = await app_id(desk, app)
    sql = statements("summary")["remove_price"]
    if await desk.db.fetchrow(sql, owner, where.area_code, where.x, where.valid_from) is None:
        raise NotFound("There is no such price.")


async def add_up(desk: Desk, app: str, period: Period) -> list[Shown]:
    """Return what the days add up to.

    Raises:
        NotFound: there is no such app.
        Invalid: there are too many rows.
    """
    rows = await summary.summary(desk.db, await app_id(desk, app), period)
    if rows is None:
        wrong = FieldError("/by", f"gives more than {MOST_ROWS} rows for these days; ask for fewer days")
        raise Invalid("The answer would be too large; see errors.", errors=(wrong,))
    return rows
