"""Notifications in the database: taken in once, projected once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Arrived:
    """A notification to be kept. ``kind`` as in the table."""

    at: datetime
    id: UUID
    app_id: int
    kind: str
    raw_sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Due:
    """A notification whose effects are to come."""

    at: datetime
    id: UUID
    app_id: int
    raw_sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mention:
    """By what a notification says whose it is."""

    app_id: int
    mark: UUID | None
    subscription: str | None
    x: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """Whose it is, and how that was found. ``bindings`` where the line itself does not tell them."""

    pool_id: int
    line_id: UUID
    found_by: str
    bindings: tuple[UUID, ...] = ()


async def keep(db: Database, arrived: Sequence[Arrived], *, lease_s: float) -> list[bool]:
    """Commit notifications; for each whether it is new. For ``lease_s`` nobody else takes a new one up."""
    rows = await db.fetch(
        statements("inbox")["keep"],
        [one.at for one in arrived],
        [one.id for one in arrived],
        [one.app_id for one in arrived],
        [one.kind for one in arrived],
        [one.raw_sealed for one in arrived],
        lease_s,
    )
    new = {row["id"] for row in rows}
    found = []
    for one in arrived:
        found.append(one.id in new)
        new.discard(one.id)  # twins of one batch
    return found


async def claim_due(db: Database, *, limit: int, lease_s: float) -> list[Due]:
    """Take up what its receiver has not brought to its end."""
    rows = await db.fetch(statements("inbox")["claim_due"], limit, lease_s)
    return [Due(row["at"], row["id"], row["app_id"], row["raw_sealed"]) for row in rows]


async def settle(db: Database, at: datetime, notice_id: UUID) -> None:
    """Note that nothing is left to be done about one."""
    await db.fetch(statements("inbox")["settle"], at, notice_id)


async def set_aside(db: Database, at: datetime, notice_id: UUID, state: str, error: str) -> None:
    """Keep one for a replay."""
    await db.fetch(statements("inbox")["set_aside"], at, notice_id, state, error)


async def lines_told(db: Database, mentions: Sequence[Mention]) -> list[Found | None]:
    """Return whose each is, as far as it says so itself."""
    found: list[Found | None] = [None] * len(mentions)
    rows = await db.fetch(
        statements("inbox")["lines_told"],
        [one.app_id for one in mentions],
        [one.mark for one in mentions],
        [one.subscription for one in mentions],
        [one.x for one in mentions],
    )
    for row in rows:
        found[row["ord"] - 1] = Found(row["pool_id"], row["line_id"], row["found_by"])
    return found


async def project(db: Database, kind: str, items: Sequence[dict[str, Any]]) -> int:
    """Bring the effects of notifications of one kind about, of those that have none yet; return how many these were."""
    row = await db.fetchrow(statements("inbox")[f"project_{kind}"], orjson.dumps(items, default=str).decode())
    return int(row["done"]) if row else 0


async def look(db: Database) -> tuple[int, float, datetime]:
    """Return how many wait for their effects (10,000 at most), the age of the oldest in seconds, and the time it is."""
    (row,) = await db.fetch(statements("inbox")["look"])
    return row["number"], row["oldest_s"], row["now"]


async def forget_ends(db: Database, *, limit: int) -> int:
    """Forget what calls did to the ends of bindings that are over; return of how many."""
    row = await db.fetchrow(statements("inbox")["forget_ends"], limit)
    return int(row["gone"]) if row else 0


async def tend(db: Database, *, ahead: int, limit: int) -> str | None:
    """Keep the tables in order by one step; return what was done, None = there was nothing to do."""
    row = await db.fetchrow(statements("inbox")["tend"], ahead, limit)
    return row["step"] if row is not None else None
