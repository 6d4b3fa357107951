"""How much is left of pools, as it was counted and told last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.domain.level import Level, Room
from broker.store.database import Database
from broker.store.statements import statements

#: Counting reads all slots of a pool: for people and events, not for requests.
_LONG_S = 60.0


@dataclass(frozen=True, slots=True)
class Due:
    """A pool that is to be counted now: what was told of it last, and whether it refused an order lately."""

    pool_id: int
    level: Level
    refused: bool


async def due(db: Database, *, every_s: float, lately_s: float) -> Due | None:
    """Take the pool that waits longest to be counted; nobody else counts it for ``every_s``. None: it is too soon."""
    row = await db.fetchrow(statements("levels")["due"], every_s, lately_s)
    return Due(row["pool_id"], Level(row["state"]), row["refused"]) if row else None


async def room(db: Database, pool_id: int) -> Room:
    """Count what is left of a pool; reads all that is taken of it."""
    (row,) = await db.fetch(statements("levels")["room"], pool_id, timeout_s=_LONG_S)
    return Room(max(row["places"], 0.0), max(row["party"], 0.0))


async def note(db: Database, was: Due, level: Level, room: Room, *, again_s: float) -> bool:
    """Keep what was counted, and when to count again; whether it was told."""
    left = round(100 * room.left, 1)
    row = await db.fetchrow(statements("levels")["note"], was.pool_id, was.level, level, left, room.bound, again_s)
    return bool(row and row["told"])


async def note_refusal(db: Database, pool_id: int, reason: str) -> bool:
    """Keep that an order has just been refused; whether it was told."""
    row = await db.fetchrow(statements("levels")["note"], pool_id, None, Level.EXHAUSTED, None, reason, None)
    return bool(row and row["told"])


async def known(db: Database, pools: Sequence[int]) -> dict[int, tuple[Level, float | None]]:
    """Return by pool its level, and how many percent were left when it was counted last."""
    rows = await db.fetch(statements("levels")["known"], list(pools))
    return {row["pool_id"]: (Level(row["state"]), row["left_percent"]) for row in rows}
