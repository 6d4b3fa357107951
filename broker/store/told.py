"""Reading what the platform told: calls, call detail records, short messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import orjson

from broker.domain.ids import date_of
from broker.store.database import Database
from broker.store.statements import statements

Table = Literal["call", "cdr", "sms"]
Row = Mapping[str, Any]

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)
#: Behind everything there is.
NEWEST = (END, UUID(int=2**128 - 1))


@dataclass(frozen=True, slots=True)
class Sought:
    """Which rows of an app: narrowed by what is not None, before ``before``, newest first."""

    app_id: int
    limit: int
    before: tuple[datetime, UUID] = NEWEST
    since: datetime = BEGINNING
    until: datetime = END
    bindings: tuple[UUID, ...] | None = None
    x: str | None = None
    party_key: int | None = None


async def page(db: Database, table: Table, sought: Sought) -> list[Row]:
    """Return a page of rows as JSON has them; encrypted ones in hex, as :func:`sealed` reads them."""
    rows = await db.fetch(
        statements("told")["page"],
        table,
        sought.app_id,
        sought.since,
        sought.until,
        *sought.before,
        list(sought.bindings) if sought.bindings is not None else None,
        sought.x,
        sought.party_key,
        sought.limit,
    )
    return [orjson.loads(row["told"]) for row in rows]


def sealed(row: Row, column: str) -> bytes | None:
    """Return an encrypted column of a row."""
    text = row[f"{column}_sealed"]
    return None if text is None else bytes.fromhex(text.removeprefix("\\x"))


async def bindings_of_order(db: Database, app_id: int, order_id: str) -> tuple[UUID, ...]:
    """Return the order's bindings, live or not."""
    return tuple(row["id"] for row in await db.fetch(statements("told")["bindings_of_order"], app_id, order_id))


async def recording(db: Database, app_id: int, cdr_id: UUID) -> tuple[str | None, str | None] | None:
    """Return name and domain of a record's recording; None = the app has no such record."""
    row = await db.fetchrow(statements("told")["recording"], date_of(cdr_id), cdr_id, app_id)
    return (row["record_name"], row["record_domain"]) if row is not None else None


async def audit(db: Database, who: str, app_id: int, table: Table, rows: Sequence[Row]) -> None:
    """Note that somebody is about to see a page of rows, newest first, with their numbers in clear."""
    subject = f"{table}: {len(rows)} rows from {rows[-1]['at']} to {rows[0]['at']}"
    await db.fetch(statements("told")["audit"], who, app_id, subject)


async def known_records(db: Database, keys: Sequence[tuple[datetime, UUID]]) -> set[tuple[datetime, UUID]]:
    """Return those records, by time and id, that are there or on their way."""
    rows = await db.fetch(statements("told")["known_records"], [at for at, _ in keys], [row_id for _, row_id in keys])
    return {(row["at"], row["id"]) for row in rows}


async def call_over(db: Database, app_id: int, call_id: UUID) -> bool:
    """Tell whether the platform has said that a call of the app is over."""
    row = await db.fetchrow(statements("told")["call_over"], call_id, app_id)
    return bool(row and row["over"])
