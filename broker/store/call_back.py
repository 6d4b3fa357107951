"""Last callers whom A is to reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class CallBack:
    """Who called last on a line; ``left_s``: how long A is to reach that one."""

    pool_id: int
    binding_id: UUID
    call_id: UUID
    caller_sealed: bytes = field(repr=False)
    left_s: int


async def take(db: Database, *, limit: int, lease_s: float) -> list[CallBack]:
    """Take some that are due; nobody else gets them within ``lease_s``."""
    return [CallBack(**dict(row)) for row in await db.fetch(statements("call_back")["take"], limit, lease_s)]


async def hold(db: Database, one: CallBack, *, lease_s: float) -> bool:
    """Keep it for so long from now on; False = somebody has called since, or another one has seen to it."""
    held = statements("call_back")["hold"]
    return await db.fetchrow(held, one.pool_id, one.binding_id, one.call_id, lease_s) is not None


async def done(db: Database, one: CallBack) -> None:
    """Note that nothing is left to be done about it; a later call stays due."""
    await db.fetch(statements("call_back")["done"], one.pool_id, one.binding_id, one.call_id)


async def forget(db: Database, *, limit: int) -> int:
    """Forget a slice of those whose binding has ended; return how many."""
    row = await db.fetchrow(statements("call_back")["forget"], limit)
    return int(row["gone"]) if row else 0
