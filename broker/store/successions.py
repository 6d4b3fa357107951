"""Bindings that go on as others in a sibling app: the intent first, then the new one, then the end of the old one."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Succession:
    """``new_id``, in one of ``pools``, is to replace a binding; claimed within ``within_s`` seconds, or never."""

    old_pool: int
    old_id: UUID
    old_app: int
    new_id: UUID
    pools: tuple[int, ...]
    key_hash: bytes | None
    within_s: float


async def begin(db: Database, item: Succession) -> str:
    """Write it down: ``begun``; or not: ``busy`` (another binding is about to replace the old one), ``over``."""
    row = await db.fetchrow(
        statements("successions")["begin"],
        item.old_pool, item.old_id, item.old_app, item.new_id, list(item.pools), item.key_hash, item.within_s,
    )  # fmt: skip
    return str(row["outcome"]) if row else "over"


async def settle(db: Database, *, limit: int, old_id: UUID | None = None) -> int:
    """End old bindings (or only ``old_id``) whose new one is active, forget about failed ones; return how many."""
    row = await db.fetchrow(statements("successions")["settle"], limit, old_id)
    return int(row["settled"]) if row else 0


async def made(db: Database, old: tuple[int, UUID], key_hash: bytes) -> tuple[int, UUID] | None:
    """Return the binding (pool id, id) that a request with this Idempotency-Key has made to replace ``old``."""
    row = await db.fetchrow(statements("successions")["made"], *old, key_hash)
    return (row["pool_id"], row["new_id"]) if row else None


async def forget(db: Database, item: Succession) -> None:
    """Take it back, unless the new binding was made after all."""
    await db.fetch(statements("successions")["forget"], item.old_pool, item.old_id, item.new_id)


async def sweep(db: Database, *, limit: int) -> None:
    """Delete some that were settled so long ago that no repeat asks for them."""
    await db.fetch(statements("successions")["sweep"], limit)
