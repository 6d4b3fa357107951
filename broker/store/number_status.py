"""What the platform says of numbers and apps, in the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from broker.domain.number_status import Standing, Status
from broker.store.database import Database
from broker.store.statements import statements

#: An X by its pool and position.
X = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Known:
    """An X as it stands in our books; ``count`` tells whether another status has come since it was read."""

    state: str
    closed_by: str | None
    opened_at: datetime | None
    count: int
    statuses: tuple[Status, ...]


async def note(db: Database, app_id: int, number: str, one: Status) -> X | None:
    """Keep one status of an app's number; None = it is none of them."""
    row = await db.fetchrow(
        statements("number_status")["note"], app_id, number, one.status, one.cause, one.created, one.words
    )
    return (row["pool_id"], row["x_id"]) if row else None


async def known(db: Database, x: X) -> Known:
    """Return a number that there is, and all that was said of it lately."""
    (row,) = await db.fetch(statements("number_status")["statuses"], *x)
    pushes = zip(row["created"] or (), row["status"] or (), row["cause"] or (), strict=True)
    return Known(
        row["state"], row["closed_by"], row["opened_at"], row["statuses"],
        tuple(Status(created, status, cause) for created, status, cause in pushes),
    )  # fmt: skip


async def turn(
    db: Database, x: X, to: Standing, *, by: str, told: Mapping[str, object], count: int | None = None
) -> bool:
    """Close or open the X, unless somebody else closed it or (``count``) more has been said; whether it was done."""
    row = await db.fetchrow(
        statements("number_status")["turn"], *x, count, to.state, by, to.reason, orjson.dumps(dict(told)).decode()
    )
    return bool(row and row["turned"])


async def evacuate(db: Database, x: X, reason: str | None) -> bool:
    """Have the bindings of the X move to others; False = they are moving already."""
    row = await db.fetchrow(statements("number_status")["evacuate"], *x, reason)
    return bool(row and row["begun"])


async def note_blacklisted(db: Database, x: X, a_key: int, b_key: int | None) -> bool:
    """Keep that a bind was refused for a blacklisted number; True = by now it is certain that it is the X."""
    row = await db.fetchrow(
        statements("number_status")["note_blacklisted"], *x, a_key, a_key if b_key is None else b_key
    )
    return bool(row and row["sure"])


async def suspend_app(db: Database, app_id: int, reason: str) -> str | None:
    """Suspend an open app; return its name if that changed anything."""
    row = await db.fetchrow(statements("number_status")["suspend_app"], app_id, reason)
    return row["name"] if row else None
